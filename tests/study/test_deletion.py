"""Deletion records: written from a study and two real models, verified as a stranger would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lethe.benchmarks.base import load_benchmark
from lethe.cli.main import main
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.study import load_study
from lethe.deletion_records import content_sha256
from lethe.records import AuditRecord, CriterionRecord, StudyRecord, VerdictRecord
from lethe.study.scored_models import find
from tests.cli.test_bad_input import refuses
from tests.reporting.pages import Page
from tests.tiny import write_model
from tests.tracking.studies import busy_study, trial

HOLDS = CriterionRecord(metric="forget_quality", value=0.2, bound="at least 0.05", holds=True)
FAILS = CriterionRecord(metric="retain_rouge", value=0.7, bound="at least 0.9 (0.9 start)", holds=False, start=1.0)
PARTLY = VerdictRecord(forgotten="partly", criteria=(HOLDS, FAILS))
ROUNDED = AuditRecord(variant="quant4", before={"forget_probability": 0.1}, after={"forget_probability": 0.2})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stored study of the embedded rows whose models are real files; its forget rows are in forget.jsonl."""
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    start, after = write_model(tmp_path / "start"), write_model(tmp_path / "after" / "model", seed=1)
    small = BENCHMARKS["tofu"].small()
    settings = [f"benchmark={json.dumps(small.model_dump(mode='json'))}", f"model={{name: pretrained, path: {start}}}"]
    study = load_study("tofu", settings)
    benchmark = load_benchmark(study.benchmark)
    member = trial(2, forgotten=PARTLY, audits=(ROUNDED,), folder=str(after.parent), pareto_rank=0, feasible=True)
    digests = {"data": benchmark.digest, "model": find(str(start)).digest, "oracle": None}
    record = busy_study(
        study=study.model_dump(mode="json"),
        digests=digests,
        start_folder=str(start),
        trials=(member, trial(3)),
        aliases={"knee": 2},
    )
    store(tmp_path, record)
    write_rows(tmp_path / "forget.jsonl", benchmark.forget_texts)
    return tmp_path


def store(root: Path, record: StudyRecord) -> None:
    folder = root / "home/studies/tofu-00000001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(record.model_copy(update={"id": folder.name}).model_dump_json())


def write_rows(file: Path, rows: tuple[tuple[str, ...], ...]) -> None:
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows]
    file.write_text("\n".join(lines) + "\n")


def written(*options: str) -> Path:
    assert main(["record", "tofu", *options]) == 0
    return Path("reports/tofu-00000001/deletion-2.json")


def verified(file: Path, *options: str, model: str = "after", forget: str = "forget.jsonl") -> int:
    return main(["record", "--verify", str(file), "--forget", forget, "--model", model, *options])


def test_a_record_holds_for_its_rows_and_its_model(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written("--by", "A. Person")
    assert "partly forgotten: retain rouge 0.7" in capsys.readouterr().out
    assert verified(file) == 0
    out = capsys.readouterr().out
    outcomes = [line.split(": ")[1] for line in out.splitlines()]
    assert outcomes == ["holds", "not checked", "holds", "holds", "signature"]
    shutil.copytree(world / "after", world / "moved")
    assert verified(file, model="moved/model") == 0


def test_an_earlier_record_stays(world: Path) -> None:
    first = written("--by", "A. Person").read_text()
    assert main(["record", "tofu"]) == 0
    folder = Path("reports/tofu-00000001")
    assert (folder / "deletion-2.json").read_text() == first
    assert verified(folder / "deletion-2-2.json") == 0


def test_a_record_does_not_hold_for_another_model(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written()
    assert verified(file, model="start") == 1
    assert "model: fails: start is the model before the request was answered" in capsys.readouterr().out
    write_model(world / "third", seed=2)
    assert verified(file, model="third") == 1
    assert "third has other weights" in capsys.readouterr().out


def test_a_record_does_not_hold_for_other_rows(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written()
    lines = Path("forget.jsonl").read_text().splitlines()
    Path("fewer.jsonl").write_text("\n".join(lines[1:]) + "\n")
    assert verified(file, forget="fewer.jsonl") == 1
    assert f"1 of its {len(lines)} rows are not in fewer.jsonl: row 1" in capsys.readouterr().out
    Path("more.jsonl").write_text("\n".join([*lines, '{"question": "Who?", "answer": "Nobody."}']) + "\n")
    assert verified(file, forget="more.jsonl") == 1
    assert f"more.jsonl row {len(lines) + 1}" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["bound", "row", "number", "key", "type"])
def test_a_changed_record_does_not_hold(world: Path, capsys: pytest.CaptureFixture[str], change: str) -> None:
    file = written()
    given: dict[str, Any] = json.loads(file.read_text())
    content = given["content"]
    if change == "bound":
        content["verdict"]["criteria"][1]["holds"] = True
    elif change == "row":
        content["request"]["rows"].pop()
    elif change == "number":
        content["evidence"][0]["after"] = 0.5
    elif change == "key":
        content["approved"] = "yes"
    else:
        content["trial"] = "two"
    file.write_text(json.dumps(given))
    assert verified(file) == 1
    assert "content: fails: it was changed" in capsys.readouterr().out


def test_a_signature_shows_a_change_that_was_sealed_again(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("key", "other"):
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        Path(f"{name}.pem").write_bytes(private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        Path(f"{name}.pub").write_bytes(public)
    file = written("--key", "key.pem")
    assert verified(file, "--public-key", "key.pub") == 0
    assert capsys.readouterr().out.endswith("the record holds\n")
    assert verified(file, "--public-key", "other.pub") == 1
    given = json.loads(file.read_text())
    given["content"]["by"] = "Somebody else"
    given["seal"]["sha256"] = content_sha256(given["content"])
    file.write_text(json.dumps(given))
    capsys.readouterr()
    assert verified(file, "--public-key", "key.pub") == 1
    assert "signature: fails" in capsys.readouterr().out


def test_the_page_says_what_the_file_says_and_neither_has_a_row(world: Path) -> None:
    file = written("--by", "A. Person <a@b>")
    page = Page(file.with_suffix(".html").read_text())
    rows = [json.loads(line) for line in Path("forget.jsonl").read_text().splitlines()]
    for text in (page.text, file.read_text()):
        assert not [row for row in rows if row["answer"] in text or row["question"] in text]
    assert "Partly forgotten: 1 of 2 criteria fail." in page.text
    assert f"To forget {len(rows)} rows." in page.text
    assert "A. Person <a@b>" in page.text
    assert "with weights rounded to 4 bits" in page.text
    content = json.loads(file.read_text())["content"]
    assert str(world) not in file.read_text()
    assert any("Relearning" in sentence for sentence in content["unchecked"])
    assert not any("Quantisation" in sentence for sentence in content["unchecked"])
    assert all(sentence in page.text for sentence in content["unchecked"])
    assert content["request"]["rows"][0] in page.text


def test_changed_rows_or_start_models_are_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(world / "start", seed=5)
    assert "the start model of tofu-00000001, has changed since" in refuses(capsys, "record", "tofu", command=main)
    file = world / "home/studies/tofu-00000001/study.json"
    given = json.loads(file.read_text())
    given["study"]["benchmark"]["corpus"]["seed"] = 7
    file.write_text(json.dumps(given))
    assert "rows of embedded have changed since study tofu-00000001" in refuses(capsys, "record", "tofu", command=main)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["record"], "no STUDY given"),
        (["record", "tofu", "--forget", "f.csv"], "--forget: belongs to --verify FILE"),
        (["record", "tofu", "--verify", "x.json"], "STUDY: does not belong to --verify"),
        (["record", "--verify", "x.json"], "x.json: there is no such file"),
        (["record", "--verify", "forget.jsonl"], "forget.jsonl: is no deletion record"),
        (["record", "tofu", "--key", "forget.jsonl"], "--key forget.jsonl: is no private key"),
        (["record", "tofu", "3"], "trial 3: study tofu-00000001 keeps the models of its front alone: choose from 2"),
        (["record", "tofu", "7"], "trial 7: study tofu-00000001 has no such trial"),
        (["record", "--verify", "x.json", "--column", "question=Q"], "--column: names columns of --forget"),
        (["record", "--verify", "x.json", "--base", "start"], "--base: belongs to --model"),
        (
            ["record", "--verify", "x.json", "--forget", "forget.jsonl", "--column", "question"],
            "--column question: give it as question=NAME",
        ),
        (
            ["record", "--verify", "x.json", "--forget", "forget.jsonl", "--column", "frage=F"],
            "unknown key 'frage': choose from answer",
        ),
    ],
)
def test_bad_input_is_one_line(world: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert says in refuses(capsys, *words, command=main)
