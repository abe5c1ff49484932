"""A finished study at an address: into a folder, and into the S3 store of `make services` where that is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from lethe.cli.sweep import main
from lethe.errors import StudyBrokenError, UserError
from lethe.records import StudyRecord
from lethe.reporting.report import write_report
from lethe.storage.object_store import PROBE, ObjectStore
from lethe.storage.publish import Publisher, open_publisher
from lethe.study.recorder import write_result
from tests.conftest import free_port
from tests.storage.places import place
from tests.tracking.studies import study, trial


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """A study of two runs, one on the front; each has a model of 9 MB, which S3 clients send in pieces."""
    trials = [trial(n, 0.2 + n / 10, 0.5, pareto_rank=n, folder=str(tmp_path / "runs" / str(n))) for n in range(2)]
    for one in trials:
        write_result(one)
        (Path(one.folder) / "model").mkdir()
        (Path(one.folder) / "model/model.safetensors").write_bytes(os.urandom(9_000_000))
        (Path(one.folder) / "checkpoint").mkdir()
    record = study(*trials, aliases={"knee": 0})
    write_report(record, tmp_path / "report")
    return record


def published(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_report_record_and_front_are_published_and_nothing_else(record: StudyRecord, tmp_path: Path) -> None:
    place = (tmp_path / "a place/shared").as_uri()
    assert open_publisher(place + "/").put(record, tmp_path / "report") == f"{place}/{record.id}"
    root, run = tmp_path / "a place/shared" / record.id, record.trials[0].run
    report = {"report/report.html", "report/front.html", "report/front.png", "report/trials.csv"}
    report.add("report/front-small.png")  # for the note in MLflow
    assert published(root) == report | {
        "study.json",
        f"front/{run}/result.json",
        f"front/{run}/model/model.safetensors",
    }
    assert StudyRecord.model_validate_json((root / "study.json").read_text()) == record
    model = Path(record.trials[0].folder) / "model/model.safetensors"
    assert (root / f"front/{run}/model/model.safetensors").read_bytes() == model.read_bytes()
    open_publisher(place).put(record, tmp_path / "report")  # again


def test_a_store_that_alters_content_is_detected(record: StudyRecord, tmp_path: Path) -> None:
    class Framing(ObjectStore):
        """Adds what nobody sent, as a server does that does not know an encoding."""

        def _write(self, path: str, content: BinaryIO) -> None:
            super()._write(path, content)
            Path(path).write_bytes(b"5\r\n" + Path(path).read_bytes())

    with pytest.raises(StudyBrokenError, match=r"failed: of the .* bytes of .* the store has made"):
        Publisher(Framing(open_publisher((tmp_path / "shared").as_uri()).store.address)).put(
            record, tmp_path / "report"
        )
    assert not (tmp_path / "shared" / record.id / "study.json").exists()


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("results", "begins with s3://, gs:// or file://"),
        ("ftp://host/folder", "begins with s3://, gs:// or file://"),
        ("s3://key:secret@bucket/folder", "--publish s3://bucket/folder: keys and options belong in the environment"),
        ("s3:///folder", "say s3://bucket/folder"),
        ("file://folder", "say s3://bucket/folder, gs://bucket/folder or file:///folder"),
        ("file:///proc/nothing", "cannot write there"),
    ],
)
def test_bad_addresses_are_refused_in_one_line(url: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tofu", "--publish", url]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert "secret" not in said


def test_an_unreachable_store_gives_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(UserError, match="--publish s3://bucket/folder: cannot write there"):
        open_publisher("s3://bucket/folder")


def test_an_s3_store_returns_every_byte(record: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with place("s3", tmp_path, monkeypatch):
        import boto3

        assert (
            open_publisher("s3://mlflow/shared").put(record, tmp_path / "report") == f"s3://mlflow/shared/{record.id}"
        )
        client, run = boto3.client("s3"), record.trials[0].run
        found = client.list_objects_v2(Bucket="mlflow", Prefix="shared/")["Contents"]
        root = f"shared/{record.id}"
        model = Path(record.trials[0].folder) / "model/model.safetensors"
        assert {f"{root}/study.json", f"{root}/front/{run}/model/model.safetensors"} <= {each["Key"] for each in found}
        stored = client.get_object(Bucket="mlflow", Key=f"{root}/front/{run}/model/model.safetensors")["Body"].read()
        assert stored == model.read_bytes()
        client.upload_file(str(model), "mlflow", "as-mlflow-does")
        assert client.get_object(Bucket="mlflow", Key="as-mlflow-does")["Body"].read() == model.read_bytes()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(UserError, match="cannot write there"):
            open_publisher("s3://mlflow/shared")
        assert f"shared/{PROBE}" in {each["Key"] for each in found}
