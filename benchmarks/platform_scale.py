"""Where the platform itself bends: many null trials at once, and a thousand in one study.

    OMP_NUM_THREADS=1 python -m benchmarks.platform_scale [--at-once 4 16 64] [--trials 1000] [--recorded 3000]

Trials are real ones of Ray Tune, through searcher, run queue, recorder, Optuna and MLflow on SQLite. The worker groups
are tasks of one actor that speak to the run queue as groups do, so that their number costs no memory and what is left
is the platform's own. Prints, per number of trials at once: milliseconds per trial, how long a free group waits for its
next run, what the driver's CPU does meanwhile; for the long study the same by hundreds, with the driver's memory, the
seconds in Optuna's ask and tell, and MLflow's backlog when the last trial ends.

A trial's actor takes about 190 MB: a number of trials that the free memory does not hold is left out with a line that
says so. Printed first: the driver's cost of one more result after so many trials (its front is drawn anew each time).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil

from lethe.pool.messages import EntryPoint, Instruction, Job, RunLease
from lethe.pool.resources import Shape
from lethe.records import EpochReport, FinalReport

if TYPE_CHECKING:
    from lethe.pool.run_queue import RunQueueClient

ACTOR, RESERVE = 190e6, 3e9  # bytes
WINDOW = 100  # trials


class Groups:
    """An actor whose tasks serve the run queue: take a run, wait, report, again."""

    def __init__(self, queue: RunQueueClient, shape: Shape, seconds: float) -> None:
        self._queue, self._shape, self._seconds = queue, shape, seconds
        self._waits: list[float] = []

    async def serve(self, count: int) -> None:
        """Until the run queue closes."""
        await asyncio.gather(*(self._serve(f"group-{i}") for i in range(count)))

    async def waits(self) -> list[float]:
        """Seconds between a run's end and the group's next run, in order of their ends."""
        return self._waits

    async def _serve(self, name: str) -> None:
        from lethe.pool.null_run import NullRequest
        from lethe.pool.run_queue import RunQueue

        incarnation = await self._queue.call(RunQueue.register, name, self._shape)
        free = None
        while True:
            order = await self._queue.call(RunQueue.take, name, incarnation, 25.0)
            if order is Instruction.EXIT:
                return
            if not isinstance(order, RunLease):
                continue
            if free is not None:
                self._waits.append(time.perf_counter() - free)
            request = NullRequest.model_validate(order.job.payload)
            for epoch in range(1, request.epochs + 1):
                await asyncio.sleep(self._seconds)
                values = {"epoch": epoch, "optimizer_step": epoch, **request.metrics}
                last = epoch == request.epochs
                report = FinalReport(verdict="complete", values=values) if last else EpochReport(values=values)
                await self._queue.call(RunQueue.report, order.number, epoch - 1, report)
            free = time.perf_counter()


@contextmanager
def timed(owner: Any, names: tuple[str, ...], spent: dict[str, float]) -> Iterator[None]:
    """Count the seconds in these methods of one object."""
    for name in names:
        setattr(owner, name, _counting(getattr(owner, name), name, spent))
    try:
        yield
    finally:
        for name in names:
            delattr(owner, name)


def _counting(method: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    return counted


def study_of(
    trials: int, at_once: int, seconds: float, sampler: str, *, uri: str = "", name: str = "null", epochs: int = 1
) -> dict[str, Any]:
    """One study of null trials on the running cluster; everything that is measured of it. `seconds` are an epoch's."""
    import ray

    from lethe.config.base import flatten
    from lethe.config.study import load_study
    from lethe.pool.null_run import NullRequest
    from lethe.pool.run_queue import RunQueue, RunQueueClient
    from lethe.records import ModelScores, StudyRecord
    from lethe.search.objectives import objective_records
    from lethe.search.study_store import StudyStore
    from lethe.study.recorder import Recorder, TrialPlan
    from lethe.study.tune_loop import tune_study
    from lethe.tracking.mlflow_tracker import MlflowTracker

    home = tempfile.mkdtemp(prefix="lethe-bench-")
    study = load_study("tofu", [f"search.trials={trials}", f"search.sampler={sampler}", "early_stopping.name=none"])
    store = StudyStore(study, f"sqlite:///{home}/optuna.db", "null")
    objectives = store.freeze({"forget": 0.8, "utility": 0.9})
    tracker = MlflowTracker(uri or f"sqlite:///{home}/mlflow.db", register_models=False)
    record = StudyRecord(
        id=name,
        space="null",
        study=study.model_dump(mode="json"),
        objectives=objective_records(objectives),
        digests={},
        start=ModelScores(metrics={"forget": 0.8, "utility": 0.9}),
        start_folder="",
    )
    tracker.begin(record)
    queue = RunQueueClient.start()
    groups = ray.remote(Groups).options(num_cpus=0, max_concurrency=10).remote(queue, Shape(), seconds)
    serving = groups.serve.remote(at_once)
    before = trial_actors()
    marks: list[dict[str, float]] = []
    spent: dict[str, float] = {}
    process = psutil.Process()

    def ended(trial: Any) -> None:
        if trial is not None:
            cpu, memory = process.cpu_times(), process.memory_info()
            now = {"at": time.perf_counter(), "rss": memory.rss, "cpu": cpu.user + cpu.system}
            now["queued"] = tracker._inbox.qsize()
            marks.append({**now, **spent})

    recorder = Recorder(queue, tracker, objectives, ended)

    def plan(number: int, recipe: Any) -> TrialPlan:
        metrics = {"forget": 0.3 + 0.5 * (number % 7) / 7, "utility": 0.5 + 0.4 * (number % 5) / 5}
        job = Job.of(f"{name}-{number}", EntryPoint.NULL, NullRequest(metrics=metrics, epochs=epochs), Shape())
        return TrialPlan(number, flatten(recipe), Path(home) / "runs" / str(number), job)

    sweep = SimpleNamespace(study=study, folder=Path(home), plan=plan, stored=lambda _: None)
    pool = SimpleNamespace(queue=queue, slots=lambda: at_once, lost=False, ended=None, broken=None)
    with timed(store, ("ask", "tell"), spent):
        tune_study(sweep, pool, store, recorder)  # type: ignore[arg-type]  # the parts that tuning reads
    waits, actors = ray.get(groups.waits.remote()), trial_actors() - before
    finish = time.perf_counter()
    tracker.finish(record.model_copy(update={"trials": tuple(recorder.trials.values())}), Path(tempfile.mkdtemp()))
    flush = time.perf_counter() - finish
    ray.get(queue.call(RunQueue.close))
    ray.get(serving)
    ray.kill(groups)
    queue.kill()
    return {"marks": marks, "waits": waits, "actors": actors, "flush": flush, "trials": tuple(recorder.trials.values())}


def trial_actors() -> int:
    """Processes that were Tune trials so far: each names itself in its log."""
    import ray

    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    return sum(":actor_name:PoolTrial" in log.read_text(errors="replace") for log in logs.glob("worker-*.out"))


def concurrency(at_once: int, seconds: float, sampler: str) -> None:
    """One line."""
    if psutil.virtual_memory().available < at_once * ACTOR + RESERVE:
        print(f"{at_once:>4} at once: left out, {psutil.virtual_memory().available / 1e9:.0f} GB are free", flush=True)
        return
    found = study_of(max(40, 5 * at_once), at_once, seconds, sampler)
    # The first of each slot starts its actor.
    marks, waits = found["marks"][at_once:], found["waits"][at_once:]
    took = marks[-1]["at"] - marks[0]["at"]
    print(
        f"{at_once:>4} at once: {took / (len(marks) - 1) * 1e3:6.0f} ms a trial, a free group waits"
        f" {statistics.median(waits) * 1e3:6.0f} ms (median), {max(waits) * 1e3:6.0f} (most);"
        f" driver {(marks[-1]['cpu'] - marks[0]['cpu']) / (len(marks) - 1) * 1e3:4.0f} CPU ms a trial,"
        f" {marks[-1]['rss'] / 2**20:.0f} MiB; {found['actors']} actors for {len(found['marks'])} trials;"
        f" MLflow {found['flush']:.1f} s behind at the end",
        flush=True,
    )


def long_study(trials: int, at_once: int, sampler: str) -> None:
    """One line per window of trials."""
    found = study_of(trials, at_once, 0.0, sampler)
    marks = found["marks"]
    print(f"{trials} trials, {at_once} at once, {sampler}: by {WINDOW}")
    for end in range(WINDOW, len(marks), WINDOW):
        first, last = marks[end - WINDOW], marks[end]
        each = {key: (last.get(key, 0.0) - first.get(key, 0.0)) / WINDOW * 1e3 for key in ("at", "cpu", "ask", "tell")}
        print(
            f"  to {end:>5}: {each['at']:6.0f} ms a trial ({each['cpu']:4.0f} driver CPU; ask {each['ask']:4.0f}, tell"
            f" {each['tell']:4.0f} wall)  {last['rss'] / 2**20:6.0f} MiB"
        )
    whole = marks[-1]["at"] - marks[0]["at"]
    print(f"  MLflow {found['flush']:.1f} s behind at the end; {len(marks) / whole:.1f} trials a second over all")


def recording(ended: int) -> None:
    """One line: what the driver does with the result of a trial after so many others."""
    from lethe.config.study import load_study
    from lethe.records import TrialRecord
    from lethe.search.objectives import ObjectiveSpace
    from lethe.study.recorder import Recorder
    from lethe.tracking.base import NullTracker

    draw = random.Random(0)

    def trial(number: int) -> TrialRecord:
        metrics = {"forget": draw.random(), "utility": draw.random()}
        folder = f"{os.environ['LETHE_HOME']}/runs/{number}"
        return TrialRecord(
            number=number, run=str(number), verdict="complete", params={}, metrics=metrics, folder=folder
        )

    objectives = ObjectiveSpace.from_goals(load_study("tofu").objectives, {"forget": 0.8, "utility": 0.9})
    recorder = Recorder(None, NullTracker(), objectives, lambda _: None)
    recorder.take_up(trial(number) for number in range(ended))
    began = time.process_time()
    for number in range(ended, ended + 3):
        recorder._add(trial(number))
    print(
        f"{ended:>6} trials ended: {(time.process_time() - began) / 3 * 1e3:6.1f} driver CPU ms for the next",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at-once", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--seconds", type=float, default=0.5, help="that a null trial takes")
    parser.add_argument("--trials", type=int, default=1000, help="of the long study; 0: none")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--recorded", type=int, nargs="*", default=[100, 1000, 3000], help="trials that have ended")
    args = parser.parse_args()
    os.environ["LETHE_HOME"] = tempfile.mkdtemp(prefix="lethe-bench-")
    for ended in args.recorded:
        recording(ended)
    if not (args.at_once or args.trials):
        return
    from lethe.pool.cluster import connect, prepare_environment

    prepare_environment()
    connect(None)
    for at_once in args.at_once:
        concurrency(at_once, args.seconds, args.sampler)
    if args.trials:
        long_study(args.trials, 4, args.sampler)


if __name__ == "__main__":
    main()
