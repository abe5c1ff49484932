"""Studies in a real SQLite store: what a person then finds there."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.config.study import Tracking
from lethe.records import AuditRecord, StudyRecord, TrialRecord, VerdictRecord
from lethe.tracking.base import NullTracker, Tracker, open_tracker
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.studies import busy_study, study, trial

Look = Callable[[str], Any]
ROOT = Path(__file__).parents[2]
VERDICTS = {f"trials.{verdict}" for verdict in ("complete", "stopped", "diverged", "infeasible", "out_of_memory")}


def live(tracker: Tracker, done: TrialRecord) -> None:
    """A trial as the study's loop tells it."""
    tracker.trial_began(done.number, done.run, done.params)
    for metrics in done.series:
        tracker.trial_reported(done.number, metrics, int(metrics["epoch"]))
    tracker.trial_ended(done)


def whole(uri: str, record: StudyRecord, report: Path, **settings: Any) -> str | None:
    tracker = MlflowTracker(uri, register_models=False, **settings)
    tracker.begin(record.model_copy(update={"trials": ()}))
    for done in record.trials:
        live(tracker, done)
    return tracker.finish(record, report)


def runs(look: Look, uri: str, clause: str = "") -> list[Any]:
    client = look(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "lethe")
    return client.search_runs([experiment.experiment_id], clause, order_by=["start_time ASC"])


def by_trial(look: Look, uri: str) -> dict[int, Any]:
    found = [run for run in runs(look, uri) if "lethe.trial" in run.data.tags]
    numbers = {int(run.data.tags["lethe.trial"]): run for run in found}
    assert len(numbers) == len(found)
    return numbers


def parent(look: Look, uri: str) -> Any:
    (only,) = (run for run in runs(look, uri) if "mlflow.parentRunId" not in run.data.tags)
    return only


def test_a_whole_study_is_found_in_the_store(
    uri: str, report: Path, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    record = busy_study()
    place = whole(uri, record, report)
    assert place == f"MLFLOW_TRACKING_URI={uri} lethe ui {record.id}"
    assert not caplog.records
    above, below = parent(look, uri), by_trial(look, uri)
    assert above.info.status == "FINISHED"
    assert above.info.run_name == record.id
    assert above.data.params["search.sampler"] == "tpe"
    assert above.data.metrics["hypervolume"] == 0.21
    assert above.data.metrics["front_size"] == 3
    assert above.data.metrics.keys() == {"trials", "front_size", "hypervolume", *VERDICTS}
    assert {f.path for f in look(uri).list_artifacts(above.info.run_id, "report")} == {"report/report.html"}
    assert {f.path for f in look(uri).list_artifacts(above.info.run_id)} == {"report", "study.json"}
    assert below.keys() == set(range(9))
    status = {number: run.info.status for number, run in below.items()}
    assert status == {**dict.fromkeys(range(5), "FINISHED"), 5: "KILLED", **dict.fromkeys((6, 7, 8), "FAILED")}
    for done in record.trials:
        tags = below[done.number].data.tags
        assert tags["mlflow.parentRunId"] == above.info.run_id
        assert (tags["lethe.run"], tags["verdict"], tags.get("reason", "")) == (done.run, done.verdict, done.reason)
        assert below[done.number].data.params == {key: str(value) for key, value in done.params.items()}


def test_start_model_and_oracle_are_runs_of_their_own(uri: str, report: Path, look: Look) -> None:
    audited = study(trial(0, pareto_rank=0))
    relearned = AuditRecord(variant="relearn", before={"forget_rouge": 0.9}, after={"forget_rouge": 0.8})
    for _ in range(2):  # a resumed study has the same two
        whole(uri, audited, report)
        kinds = {run.data.tags.get("kind"): run for run in runs(look, uri)}
        assert len(runs(look, uri)) == 4
        assert kinds["start"].data.metrics["forget"] == 0.9
        assert kinds["oracle"].data.metrics["utility"] == 0.58
        assert {run.info.status for run in runs(look, uri)} == {"FINISHED"}
        assert kinds["start"].data.tags["mlflow.parentRunId"] == parent(look, uri).info.run_id
    start = audited.start.model_copy(update={"audits": (relearned,)})
    whole(uri, audited.model_copy(update={"start": start}), report)
    (found,) = runs(look, uri, "tags.kind = 'start'")
    assert found.data.metrics["audit_relearn_forget_rouge"] == 0.8


def test_front_runs_are_named_and_described_and_renamed_when_they_leave(uri: str, report: Path, look: Look) -> None:
    (report / "front.png").write_bytes(b"png")
    first = trial(0, 0.25, 0.58, pareto_rank=0, forgotten=VerdictRecord(forgotten="yes", criteria=()))
    record = study(first, trial(1), aliases={"knee": 0, "best-forget": 0})
    whole(uri, record, report)
    below, above = by_trial(look, uri), parent(look, uri)
    assert below[0].info.run_name == "knee, best-forget 0 · forget 0.25 utility 0.58"
    assert below[1].info.run_name == "trial-001"
    picture = f"![the Pareto front](get-artifact?path=report%2Ffront-small.png&run_uuid={above.info.run_id})"
    for run in (above, below[0]):
        assert picture in run.data.tags["mlflow.note.content"]
    said = "**Forgotten** (trial 0, knee, best-forget). 2 trials, 1 on the front."
    assert said in above.data.tags["mlflow.note.content"]
    better = trial(2, 0.1, 0.59, pareto_rank=0)
    beaten = first.model_copy(update={"pareto_rank": 1, "forgotten": None})
    whole(uri, study(beaten, trial(1), better, aliases={"knee": 2}), report)
    names = {number: run.info.run_name for number, run in by_trial(look, uri).items()}
    assert names == {0: "trial-000", 1: "trial-001", 2: "knee 2 · forget 0.1 utility 0.59"}


def test_the_record_gets_the_pages_of_its_runs_with_or_without_registered_models(uri: str, look: Look) -> None:
    record = busy_study()
    tracker = MlflowTracker(uri, register_models=False)
    tracker.begin(record)
    for done in record.trials[:2]:
        live(tracker, done)
    pages = tracker.register(record).add_to(record).trials
    runs_of = by_trial(look, uri)
    for done in pages:
        run = runs_of.get(done.number)
        assert done.page == (f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if run else "")
    assert sum(bool(done.page) for done in pages) == 2


def test_data_is_an_input_by_name_and_digest_alone(uri: str, report: Path, look: Look) -> None:
    private = {"name": "tofu", "forget": "forget10", "source": "/home/me/private"}
    whole(uri, busy_study(study={"name": "tofu", "benchmark": private}), report)
    found = {run.info.run_name: run.inputs.dataset_inputs for run in runs(look, uri) if run.inputs.dataset_inputs}
    assert len(found) == 6, "study, start model, oracle, front"
    for (data,) in found.values():
        assert (data.dataset.name, data.dataset.digest) == ("tofu forget10", "d" * 16)
        assert "private" not in data.dataset.source
        assert (data.dataset.schema, data.dataset.profile) == (None, None)


def test_metrics_are_stored_by_epoch_with_cost_and_front(uri: str, report: Path, look: Look) -> None:
    record = busy_study()
    whole(uri, record, report)
    below = by_trial(look, uri)
    for done in record.trials[:6]:
        history = look(uri).get_metric_history(below[done.number].info.run_id, "forget")
        assert [(point.step, point.value) for point in history] == [(int(m["epoch"]), m["forget"]) for m in done.series]
        found = below[done.number].data.metrics
        assert {key: found[key] for key in done.metrics} == done.metrics
        assert found["wall_seconds"] == 8.0
    assert [below[number].data.metrics.get("pareto_rank") for number in range(5)] == [0, 0, 0, 1, None]
    front = runs(look, uri, "tags.front = 'true'")
    assert {int(run.data.tags["lethe.trial"]) for run in front} == {0, 1, 2}
    assert math.isnan(below[6].data.metrics["forget"])
    assert below[2].info.start_time == 1_020_000
    assert below[2].info.end_time == 1_028_000


def test_metrics_known_only_at_the_end_are_sent_after_the_reports(uri: str, report: Path, look: Look) -> None:
    tracker = MlflowTracker(uri, register_models=False)
    done = trial(0, metrics={**trial(0).metrics, "train_seconds": 3.5})
    tracker.begin(study())
    tracker.trial_began(0, done.run, done.params)
    for metrics in done.series:
        tracker.trial_reported(0, metrics, int(metrics["epoch"]))
    while not tracker._trials.get(done.run, 0).sent_epochs >= {1, 2, 3}:
        time.sleep(0.01)
    tracker.trial_ended(done)
    tracker.finish(study(done), report)
    found = by_trial(look, uri)[0]
    assert found.data.metrics["train_seconds"] == 3.5
    assert found.data.metrics["wall_seconds"] == 8.0
    assert len(look(uri).get_metric_history(found.info.run_id, "forget")) == 3


def test_an_interrupted_study_continues_without_duplicates(uri: str, report: Path, look: Look) -> None:
    first = trial(0, pareto_rank=0)
    cut = trial(1, epochs=3)
    half = cut.model_copy(update={"verdict": "interrupted", "series": cut.series[:1], "metrics": cut.series[0]})
    whole(uri, study(first, half, interrupted=True), report)
    assert parent(look, uri).info.status == "KILLED"
    assert by_trial(look, uri)[1].info.status == "KILLED"

    tracker = MlflowTracker(uri, register_models=False)
    tracker.begin(study(first))
    tracker.trial_ended(first)  # answered from disk
    again = cut.model_copy(update={"number": 2})  # the same run under a new number
    live(tracker, again)
    better = trial(3, 0.1, 0.55, pareto_rank=0)
    live(tracker, better)
    place = study(first.model_copy(update={"pareto_rank": 1}), again, better)
    assert tracker.finish(place, report)

    below = by_trial(look, uri)
    assert below.keys() == {0, 2, 3}
    assert parent(look, uri).info.status == "FINISHED"
    assert all(run.info.status == "FINISHED" for run in below.values())
    assert below[2].data.tags["verdict"] == "complete"
    assert below[0].data.tags["front"] == "false"
    assert below[0].data.metrics["pareto_rank"] == 1
    for run in below.values():
        history = look(uri).get_metric_history(run.info.run_id, "forget")
        assert [point.step for point in history] == [1, 2, 3]


def test_equal_runs_of_one_study_are_two_trials(uri: str, report: Path, look: Look) -> None:
    first = trial(0)
    whole(uri, study(first, first.model_copy(update={"number": 4})), report)
    below = by_trial(look, uri)
    assert below.keys() == {0, 4}
    assert {run.data.tags["lethe.run"] for run in below.values()} == {first.run}
    whole(uri, study(first, first.model_copy(update={"number": 4})), report)
    assert by_trial(look, uri).keys() == {0, 4}


def test_a_run_of_a_killed_driver_is_ended(uri: str, report: Path, look: Look) -> None:
    killed = MlflowTracker(uri, register_models=False)
    killed.begin(study())
    killed.trial_began(0, trial(0).run, trial(0).params)
    killed._inbox.put(None)
    deadline = time.monotonic() + 20
    while not Path(uri.removeprefix("sqlite:///")).exists() or not by_trial_quietly(look, uri):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    whole(uri, study(trial(1)), report)
    below = by_trial(look, uri)
    assert below[0].info.status == "KILLED"
    assert below[0].data.tags["verdict"] == "interrupted"


def by_trial_quietly(look: Look, uri: str) -> bool:
    try:
        return bool(by_trial(look, uri))
    except ValueError:  # the experiment is not there yet
        return False


def test_failed_calls_are_repeated_and_warned_about_once(
    uri: str, report: Path, look: Look, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    down = True
    original = MlflowClient.log_batch

    def log_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        if down:
            raise OSError("the network\nis away")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    tracker = MlflowTracker(uri, register_models=False)
    record = study(trial(0, pareto_rank=0), trial(1))
    tracker.begin(record)
    for done in record.trials:
        live(tracker, done)
    while not tracker._inbox.empty():
        time.sleep(0.01)
    down = False
    assert tracker.finish(record, report)
    assert [r.getMessage() for r in caplog.records] == [
        "MLflow is behind and will be sent the rest when it answers: OSError: the network"
    ]
    below = by_trial(look, uri)
    assert [len(look(uri).get_metric_history(run.info.run_id, "forget")) for run in below.values()] == [3, 3]
    assert parent(look, uri).data.params["search.sampler"] == "tpe"


def test_a_store_that_becomes_unreachable_costs_one_warning(
    uri: str, report: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MlflowTracker(uri)
    tracker._address = "http://127.0.0.1:9"
    assert tracker.finish(study(trial(0)), report) is None
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "not everything is in MLflow" in warning.getMessage()


def test_the_study_does_not_wait_for_the_store(uri: str, report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    opened, create_run = threading.Event(), MlflowClient.create_run

    def closed(self: Any, *given: Any, **more: Any) -> Any:
        assert opened.wait(60)
        return create_run(self, *given, **more)

    monkeypatch.setattr(MlflowClient, "create_run", closed)
    tracker = MlflowTracker(uri, register_models=False)
    record = study(*(trial(number) for number in range(20)))
    tracker.begin(record)
    for done in record.trials:
        live(tracker, done)
    opened.set()  # reached although the store has not answered once
    assert tracker.finish(record, report)


def test_the_configuration_selects_the_tracker(uri: str, report: Path) -> None:
    assert isinstance(open_tracker(Tracking(enabled=False)), NullTracker)
    null = NullTracker()
    null.begin(study())
    live(null, trial(0))
    assert null.finish(study(trial(0)), report) is None
    assert null.uri is None
    tracker = open_tracker(Tracking(uri=uri, experiment="other"))
    assert isinstance(tracker, MlflowTracker)
    assert tracker.uri == uri


CALLS = """
import sys
import threading
sys.addaudithook(lambda name, args: print(name, args) if name in ("socket.connect", "socket.getaddrinfo") else None)
import platform
from pathlib import Path
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.studies import study, trial
folder = Path(sys.argv[1])
tracker = MlflowTracker(f"sqlite:///{folder.parent}/new.db")
record = study(trial(0))
tracker.begin(record)
tracker.trial_ended(record.trials[0])
assert tracker.finish(record, folder)
"""


def test_no_connection_and_no_noise(report: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "CI", "PYTEST"))}
    command = [sys.executable, "-c", CALLS, str(report)]
    process = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
