"""Early stopping on a real cluster, with runs that do nothing: what a stopped trial leaves, and how soon its group
works again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from lethe.config.base import flatten
from lethe.config.study import load_study
from lethe.pool.messages import EntryPoint, Job
from lethe.pool.null_run import NullRequest
from lethe.pool.resources import Shape
from lethe.records import FinalReport, TrialRecord
from lethe.search.early_stopping import FILE, read_entries
from lethe.search.study_store import StudyStore
from lethe.study.recorder import REPORT, Recorder, TrialPlan, read_result
from lethe.study.tune_loop import tune_study
from lethe.tracking.base import NullTracker

pytestmark = pytest.mark.slow

START = {"forget": 0.8, "utility": 0.9}
EPOCHS, EPOCH_S = 4, 0.05
# The worse half of these, in the order of trials, is stopped at the first epoch.
FORGET = [0.3, 0.5, 0.2, 0.6, 0.7, 0.65, 0.1, 0.75]


class Watched(Recorder):
    """Notes when each trial was stopped and when each first report came."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.stopped: list[float] = []
        self.first: list[float] = []

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if result[REPORT].values["epoch"] == 1:
            self.first.append(time.monotonic())
        if result.get("done") and not isinstance(result[REPORT], FinalReport):
            self.stopped.append(time.monotonic())
        super().on_trial_result(iteration, trials, trial, result, **info)


@pytest.fixture(scope="module")
def pool(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lethe.pool.worker_pool import Pool

    pool = Pool(tmp_path_factory.mktemp("groups"), max_groups=1)
    pool.warm(Shape())
    yield pool
    pool.close()


def sweep(folder: Path, *overrides: str) -> SimpleNamespace:
    """The parts of a Sweep that tuning reads."""
    study = load_study("tofu", [f"search.trials={len(FORGET)}", "search.sampler=random", *overrides])

    def plan(number: int, recipe: Any) -> TrialPlan:
        metrics = {"forget": FORGET[number], "utility": 0.85}
        request = NullRequest(metrics=metrics, epochs=EPOCHS, seconds=EPOCH_S)
        job = Job.of(recipe.digest(), EntryPoint.NULL, request, Shape())
        return TrialPlan(number, flatten(recipe), folder / "runs" / job.run, job)

    def stored(plan: TrialPlan) -> TrialRecord | None:
        return read_result(plan.folder)

    return SimpleNamespace(study=study, folder=folder, plan=plan, stored=stored)


def test_stopped_trials(pool: Any, tmp_path: Path) -> None:
    part = sweep(tmp_path, "early_stopping={name: mo_asha, metrics: [forget]}")
    store = StudyStore(part.study, f"sqlite:///{tmp_path / 'optuna.db'}", "live")
    recorder = Watched(pool.queue, NullTracker(), store.freeze(START), lambda ended: None)
    assert tune_study(part, pool, store, recorder) is False

    stopped = {number: t for number, t in recorder.trials.items() if t.verdict == "stopped"}
    assert sorted(stopped) == [1, 3, 4, 5, 7], "each is in the worse half of those before it"
    for number, trial in stopped.items():
        assert len(trial.series) == 1
        assert trial.metrics["forget"] == FORGET[number], "it has the last report"
        assert not trial.on_front
        assert trial.pareto_rank is None
    assert stopped[3].reason == "place 4 of 4 at epoch 1"
    states = {t.user_attrs["index"]: t.state for t in store.trials()}
    assert states == {n: TrialState.PRUNED if n in stopped else TrialState.COMPLETE for n in range(len(FORGET))}
    assert {t.number for t in recorder.trials.values() if t.on_front} == {6}

    # From STOP to the next run's first report, less the epoch that it took: the one group was free at once.
    moments = recorder.stopped[:-1]
    waited = sorted(min(first for first in recorder.first if first > moment) - moment - EPOCH_S for moment in moments)
    assert waited[len(waited) // 2] < 1.0, waited

    # Files: what a resume decides with, and results that are not computed again.
    entries = read_entries(tmp_path / "runs")
    assert [entry.trial for entry in entries if entry.rung == 0] == list(range(len(FORGET)))
    assert {entry.trial for entry in entries if not entry.goes_on} == set(stopped)
    assert all((Path(t.folder) / FILE).exists() for t in recorder.trials.values())
    assert read_result(Path(stopped[1].folder)).verdict == "stopped"


def test_a_rule_ends_the_study_and_says_so(pool: Any, tmp_path: Path) -> None:
    """The hypervolume grows with the trials 0, 2 and 6 only; one trial runs at a time."""
    part = sweep(tmp_path, "stop.no_growth=3", "early_stopping={name: none}")
    said: list[str] = []
    part.console = SimpleNamespace(say=said.append)
    store = StudyStore(part.study, None, "ends")
    recorder = Recorder(pool.queue, NullTracker(), store.freeze(START), lambda ended: None)
    assert tune_study(part, pool, store, recorder) is False
    assert sorted(recorder.trials) == [0, 1, 2, 3, 4, 5]
    assert said == ["no more trials: the hypervolume has not grown in 3 trials"]
