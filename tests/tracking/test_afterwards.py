"""Fresh seeds and audits in MLflow: runs of their own, numbers on the members, tags on the registered models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.records import CriterionRecord, StudyRecord, VerdictRecord
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.studies import repeated, save_model, study, trial

Look = Callable[[str], Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    save_model(folder / "model")
    return folder


def front(folder: Path) -> StudyRecord:
    return study(trial(0, 0.5, 0.58, pareto_rank=0, folder=str(folder)), trial(3, 0.8, 0.3, pareto_rank=1))


def finish(uri: str, record: StudyRecord, report: Path) -> None:
    tracker = MlflowTracker(uri)
    tracker.begin(record)
    for found in record.trials:
        tracker.trial_ended(found)
        for again in found.confirmation.runs[:1] if found.confirmation else ():  # the other one by `finish` alone
            tracker.trial_ended(again)
    tracker.finish(record, report)


def test_confirmations_and_audits_are_sent_once(
    model: Path, uri: str, report: Path, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    finish(uri, front(model), report)  # an earlier session, which neither repeated nor audited
    record = repeated(front(model))
    client = look(uri)
    for _ in range(2):
        finish(uri, record, report)
        runs = client.search_runs(["1"], "tags.`lethe.trial` = '0'")
        by_kind = {run.data.tags["kind"]: run for run in runs}
        assert sorted(run.data.tags["kind"] for run in runs) == ["confirmation", "confirmation", "trial"]
        assert {run.info.run_name for run in runs} == {
            "front 0 · forget 0.5 utility 0.58",
            "trial-000-seed-1",
            "trial-000-seed-2",
        }
        again, member = by_kind["confirmation"], by_kind["trial"]
        assert again.info.status == "FINISHED"
        assert "front" not in again.data.tags
        assert again.data.tags["mlflow.parentRunId"] == member.data.tags["mlflow.parentRunId"]
        assert member.data.metrics["forget_mean"] == 0.55
        assert member.data.metrics["audit_quant4_utility"] == 0.25
        assert member.data.tags["confirmed"] == "true"
        history = client.get_metric_history(member.info.run_id, "audit_relearn_forget_rouge")
        assert [metric.value for metric in history] == [0.7]
        (version,) = client.search_model_versions("name = 'lethe-tofu'")
        assert {
            "confirmed": "true",
            "forget_mean": "0.55",
            "audit_relearn_forget_rouge": "0.7",
        }.items() <= version.tags.items()
        assert float(version.tags["forget_spread"]) == pytest.approx(0.0707, abs=1e-4)
    assert not caplog.records


def test_the_verdict_is_a_metric_and_a_tag_of_run_and_version(model: Path, uri: str, report: Path, look: Look) -> None:
    failing = CriterionRecord(metric="utility", value=0.3, bound="at least 0.54 (0.9 start)", holds=False, start=0.6)
    why = "utility 0.3 (-50 %), at least 0.54 (0.9 start)"
    finish(uri, front(model), report)  # judged by a later session alone
    for forgotten, found, said in (("partly", (failing,), why), ("yes", (), "every criterion holds")):
        record = front(model)
        verdict = VerdictRecord(forgotten=forgotten, criteria=found)
        judged = record.trials[0].model_copy(update={"forgotten": verdict})
        finish(uri, record.model_copy(update={"trials": (judged, *record.trials[1:])}), report)
        client = look(uri)
        (run,) = client.search_runs(["1"], f"tags.forgotten = '{forgotten}'")
        assert run.data.tags["forgotten.why"] == said
        assert run.data.metrics["forgotten"] == {"yes": 1.0, "partly": 0.5}[forgotten]
        (version,) = client.search_model_versions("name = 'lethe-tofu'")
        assert (version.tags["forgotten"], version.tags["forgotten.why"]) == (forgotten, said)
