"""What the platform itself costs: null trials through Tune, pool, Optuna and MLflow on SQLite.

    OMP_NUM_THREADS=1 python -m benchmarks.pool_overhead [--trials 100] [--seconds 0]

Prints seconds from start to the first free group, then milliseconds per null trial between the first and last result.
With `--seconds` trials sleep so long, and it prints the share of that time in which a group had no trial.
"""

from __future__ import annotations

import argparse
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.0)
    args = parser.parse_args()
    trials, seconds = args.trials, args.seconds
    os.environ["LETHE_HOME"] = home = tempfile.mkdtemp(prefix="lethe-bench-")
    from lethe.pool.cluster import connect, prepare_environment

    prepare_environment()
    began = time.perf_counter()
    connect(None)

    from lethe.config.base import flatten
    from lethe.config.study import load_study
    from lethe.pool.messages import EntryPoint, Job
    from lethe.pool.null_run import NullRequest
    from lethe.pool.resources import Shape
    from lethe.pool.worker_pool import Pool
    from lethe.records import ModelScores, StudyRecord
    from lethe.search.objectives import objective_records
    from lethe.search.study_store import StudyStore
    from lethe.study.recorder import Recorder, TrialPlan
    from lethe.study.tune_loop import tune_study
    from lethe.tracking.mlflow_tracker import MlflowTracker

    study = load_study("tofu", [f"search.trials={trials}", "search.sampler=tpe", "early_stopping.name=none"])
    store = StudyStore(study, f"sqlite:///{home}/optuna.db", "null")
    objectives = store.freeze({"forget": 0.8, "utility": 0.9})
    tracker = MlflowTracker(f"sqlite:///{home}/mlflow.db", register_models=False)
    record = StudyRecord(
        id="null",
        space="null",
        study=study.model_dump(mode="json"),
        objectives=objective_records(objectives),
        digests={},
        start=ModelScores(metrics={"forget": 0.8, "utility": 0.9}),
        start_folder="",
    )
    tracker.begin(record)
    pool = Pool(Path(home) / "groups")
    groups = pool.warm(Shape())
    ended: list[float] = []
    recorder = Recorder(
        pool.queue, tracker, objectives, lambda trial: ended.append(time.perf_counter()) if trial else None
    )

    def plan(number: int, recipe: Any) -> TrialPlan:
        folder = Path(home) / "runs" / str(number)
        metrics = {"forget": 0.3 + 0.5 * (number % 7) / 7, "utility": 0.5 + 0.4 * (number % 5) / 5}
        request = NullRequest(metrics=metrics, seconds=seconds)
        job = Job.of(f"null-{number}", EntryPoint.NULL, request, Shape())
        return TrialPlan(number, flatten(recipe), folder, job)

    sweep = SimpleNamespace(study=study, folder=Path(home), plan=plan, stored=lambda _: None)
    tune_study(sweep, pool, store, recorder)  # type: ignore[arg-type]  # the parts of a Sweep that tuning reads
    finish = time.perf_counter()
    tracker.finish(record.model_copy(update={"trials": tuple(recorder.trials.values())}), Path(tempfile.mkdtemp()))
    print(f"{groups} groups, first result after {ended[0] - began:.1f} s")
    span = ended[-1] - ended[0]
    print(f"{span / (len(ended) - 1) * 1e3:.0f} ms per trial over {len(ended)} trials")
    if seconds:
        # Groups began together, so the first trial's end is that of the first round; the last round may be short.
        whole = [end for end in ended if end <= ended[-1] - seconds / 2] or ended
        idle = 1 - (len(whole) - groups) * seconds / groups / (whole[-1] - ended[groups - 1])
        print(f"groups without a trial {idle:.1%} of the time")
    print(f"{time.perf_counter() - finish:.1f} s to flush MLflow at the end")
    pool.close()


if __name__ == "__main__":
    main()
