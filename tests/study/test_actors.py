"""Tune's trial actors are not started again and again, though trials are shorter than an actor's start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.platform_scale import Groups
from lethe.config.base import flatten
from lethe.config.study import load_study
from lethe.pool.messages import EntryPoint, Job
from lethe.pool.null_run import NullRequest
from lethe.pool.resources import Shape
from lethe.pool.run_queue import RunQueue, RunQueueClient
from lethe.search.study_store import StudyStore
from lethe.study.recorder import Recorder, TrialPlan
from lethe.study.tune_loop import tune_study
from lethe.tracking.base import NullTracker

AT_ONCE, TRIALS = 3, 12


class Seen(Recorder):
    """Notes which processes passed reports on."""

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self.pids = {*getattr(self, "pids", ()), result["pid"]}
        super().on_trial_result(iteration, trials, trial, result, **info)


def test_as_many_actors_as_trials_at_once(cluster: None, tmp_path: Path) -> None:
    import ray

    study = load_study("tofu", [f"search.trials={TRIALS}", "search.sampler=random"])
    store = StudyStore(study, f"sqlite:///{tmp_path / 'optuna.db'}", "actors")
    queue = RunQueueClient.start()
    groups = ray.remote(Groups).options(num_cpus=0, max_concurrency=10).remote(queue, Shape(), 0.2)
    serving = groups.serve.remote(AT_ONCE)
    recorder = Seen(queue, NullTracker(), store.freeze({"forget": 0.8, "utility": 0.9}), lambda ended: None)

    def plan(number: int, recipe: Any) -> TrialPlan:
        job = Job.of(f"r-{number}", EntryPoint.NULL, NullRequest(metrics={"forget": 0.5, "utility": 0.5}), Shape())
        return TrialPlan(number, flatten(recipe), tmp_path / str(number), job)

    sweep = SimpleNamespace(study=study, folder=tmp_path, plan=plan, stored=lambda _: None)
    pool = SimpleNamespace(queue=queue, slots=lambda: AT_ONCE, lost=False, ended=None, broken=None)
    assert tune_study(sweep, pool, store, recorder) is False  # type: ignore[arg-type]  # the parts that tuning reads
    ray.get(queue.call(RunQueue.close))
    ray.get(serving)
    assert len(recorder.trials) == TRIALS
    assert len(recorder.pids) == AT_ONCE
