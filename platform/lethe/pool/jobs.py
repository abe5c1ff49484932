"""One run as those see it who wait for its reports.

Work for the warm groups that is no Tune trial: submitted at once, followed until all of it has ended.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from lethe.errors import StudyBrokenError
from lethe.pool.run_queue import ReportPayload

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool


class QueuedRun:
    """A run in the run queue, submitted once and again whenever the run queue has died and forgotten it. `claim` is the
    name of whoever asks for it."""

    def __init__(self, queue: Any, run: str, payload: dict[str, Any], shape: str, claim: str) -> None:
        self._queue, self._run = queue, run
        self._submission = (run, payload, shape, claim)
        self._submit()

    def report(self, seen: int, get: Callable[[Any], Any] = ray.get) -> ReportPayload:
        """The report after the first `seen`, whose answer is "continue". `get` waits for a reference."""
        while (found := get(self._queue.next_report.remote(self._run, seen))) is None:
            if not self._submit():
                return {"final": True, "verdict": "stopped"}
        return found

    def _submit(self) -> bool:
        return ray.get(self._queue.submit.remote(*self._submission))


WAIT_S = 1.0


@dataclass(frozen=True)
class Job:
    """`name` is the pool's own for it; `shape` says which groups can do it."""

    name: str
    payload: dict[str, Any]
    shape: str


OnJobEnd = Callable[[Job, list[dict[str, Any]]], None]


def run_jobs(pool: Pool, jobs: Iterable[Job], ended: OnJobEnd) -> None:
    """`ended` is given each job with all its reports, the last with the verdict, in the order in which they end.

    Ctrl-C raises KeyboardInterrupt; what has not ended then is stopped. Raises Broken once no group can be had.
    """
    waiting: dict[Any, tuple[Job, list[dict[str, Any]]]] = {}

    def submit(job: Job) -> None:
        ray.get(pool.queue.submit.remote(job.name, job.payload, job.shape, job.name))

    def follow(job: Job, reports: list[dict[str, Any]]) -> None:
        waiting[pool.queue.next_report.remote(job.name, len(reports))] = job, reports

    for job in jobs:
        submit(job)
        follow(job, [])
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=WAIT_S)
            if not ready and pool.broken:
                raise StudyBrokenError(pool.broken)
            for ref in ready:
                job, reports = waiting.pop(ref)
                report = ray.get(ref)
                if report is None:  # a run queue that was started again knows nothing of it
                    submit(job)
                    follow(job, reports)
                    continue
                if report.get("verdict") == "interrupted":
                    raise StudyBrokenError(report["reason"])
                reports.append(report)
                if not report.get("final"):
                    follow(job, reports)
                    continue
                pool.queue.forget.remote(job.name, job.name)
                ended(job, reports)
    finally:
        if not pool.lost:
            ray.get([pool.queue.stop.remote(job.name) for job, _ in waiting.values()])


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again: Tune leaves a handler behind that only takes a note."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
