"""A real MLflow server that is killed in the middle of a study and comes back on the same store."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lethe.tracking import mlflow_tracker
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.studies import study, trial

pytestmark = pytest.mark.slow


class Server:
    """MLflow's application in processes that were forked before anything else ran: importing it takes seconds."""

    def __init__(self, uri: str, folder: Path, lives: int) -> None:
        from mlflow import server

        os.environ |= {
            server.BACKEND_STORE_URI_ENV_VAR: uri,
            server.REGISTRY_STORE_URI_ENV_VAR: uri,
            server.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            server.ARTIFACTS_DESTINATION_ENV_VAR: (folder / "artifacts").as_uri(),
            server.SERVE_ARTIFACTS_ENV_VAR: "true",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._waiting = [self._fork() for _ in range(lives)]

    def _fork(self) -> tuple[int, int]:
        wake, waker = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.close(waker)
                if os.read(wake, 1):
                    self._serve()
            finally:
                os._exit(0)
        os.close(wake)
        return child, waker

    def _serve(self) -> None:
        from mlflow import server
        from werkzeug.serving import make_server

        make_server("127.0.0.1", self.port, server.app, threaded=True).serve_forever()

    def start(self) -> None:
        self._child, waker = self._waiting.pop(0)
        os.write(waker, b"!")
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)


@pytest.fixture
def server(uri: str, tmp_path: Path) -> Iterator[Server]:
    before = dict(os.environ)
    server = Server(uri, tmp_path, lives=2)
    yield server
    server.kill()
    os.environ.clear()
    os.environ.update(before)


def test_events_during_an_outage_are_sent_afterwards(
    server: Server, uri: str, report: Path, look: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(mlflow_tracker, "RETRY_S", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server.start()
    record = study(trial(0), trial(1), trial(2, verdict="diverged"))
    tracker = MlflowTracker(f"http://127.0.0.1:{server.port}", register_models=False)
    tracker.begin(record)

    def live(done: Any, until: int) -> None:
        tracker.trial_began(done.number, done.run, done.params)
        for metrics in done.series[:until]:
            tracker.trial_reported(done.number, metrics, int(metrics["epoch"]))

    def ended() -> set[str]:
        runs = look(uri).search_runs([e.experiment_id for e in look(uri).search_experiments()])
        return {r.data.tags["lethe.run"] for r in runs if r.data.tags.get("verdict")}

    def await_ended(count: int) -> None:
        deadline = time.monotonic() + 60
        while len(ended()) < count:
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.1)

    first, second, third = record.trials
    live(first, 3)
    tracker.trial_ended(first)
    await_ended(1)
    live(second, 1)
    server.kill()
    live(second, 3)
    tracker.trial_ended(second)
    live(third, 2)
    time.sleep(0.5)
    server.start()
    await_ended(2)  # nothing told the tracker but time
    tracker.trial_ended(third)
    assert tracker.finish(record, report)
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    assert "answers again" in caplog.text
    client = look(uri)
    runs = client.search_runs([client.get_experiment_by_name("lethe").experiment_id])
    children = [r for r in runs if "lethe.trial" in r.data.tags]
    assert sorted(r.data.tags["lethe.run"] for r in children) == sorted(t.run for t in record.trials)
    assert {r.info.status for r in runs} == {"FINISHED", "FAILED"}
    for child in children:
        assert [m.step for m in client.get_metric_history(child.info.run_id, "forget")] == [1, 2, 3]


def test_a_lost_answer_makes_no_second_run(
    uri: str, report: Path, look: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    original, lost = MlflowClient.create_run, []

    def create_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = original(self, *args, **kwargs)
        if "trial" in kwargs["run_name"] and not lost:
            lost.append(run.info.run_id)
            raise OSError("the answer")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    tracker = MlflowTracker(uri, register_models=False)
    record = study(trial(0))
    tracker.begin(record)
    tracker.trial_began(0, record.trials[0].run, record.trials[0].params)
    tracker.trial_ended(record.trials[0])
    assert tracker.finish(record, report)
    client = look(uri)
    runs = client.search_runs([client.get_experiment_by_name("lethe").experiment_id])
    assert [r.info.run_id for r in runs if "lethe.trial" in r.data.tags] == lost
