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
    """A run in the mailbox, submitted once and again whenever the mailbox has died and forgotten it. `claim` is the
    name of whoever asks for it."""

    def __init__(self, mailbox: Any, run: str, payload: dict[str, Any], shape: str, claim: str) -> None:
        self._mailbox, self._run = mailbox, run
        self._submission = (run, payload, shape, claim)
        self._submit()

    def report(self, seen: int, get: Callable[[Any], Any] = ray.get) -> ReportPayload:
        """The report after the first `seen`, whose answer is "continue". `get` waits for a reference."""
        while (found := get(self._mailbox.next_report.remote(self._run, seen))) is None:
            if not self._submit():
                return {"final": True, "verdict": "stopped"}
        return found

    def _submit(self) -> bool:
        return ray.get(self._mailbox.submit.remote(*self._submission))


WAIT_S = 1.0


@dataclass(frozen=True)
class Job:
    """`name` is the pool's own for it; `shape` says which groups can do it."""

    name: str
    payload: dict[str, Any]
    shape: str


OnJobEnd = Callable[[Job, list[dict[str, Any]]], None]


def run_jobs(pool: Pool, errands: Iterable[Job], ended: OnJobEnd) -> None:
    """`ended` is given each errand with all its reports, the last with the verdict, in the order in which they end.

    Ctrl-C raises KeyboardInterrupt; what has not ended then is stopped. Raises Broken once no group can be had.
    """
    waiting: dict[Any, tuple[Job, list[dict[str, Any]]]] = {}

    def submit(errand: Job) -> None:
        ray.get(pool.mailbox.submit.remote(errand.name, errand.payload, errand.shape, errand.name))

    def follow(errand: Job, reports: list[dict[str, Any]]) -> None:
        waiting[pool.mailbox.next_report.remote(errand.name, len(reports))] = errand, reports

    for errand in errands:
        submit(errand)
        follow(errand, [])
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=WAIT_S)
            if not ready and pool.broken:
                raise StudyBrokenError(pool.broken)
            for ref in ready:
                errand, reports = waiting.pop(ref)
                report = ray.get(ref)
                if report is None:  # a mailbox that was started again knows nothing of it
                    submit(errand)
                    follow(errand, reports)
                    continue
                if report.get("verdict") == "interrupted":
                    raise StudyBrokenError(report["reason"])
                reports.append(report)
                if not report.get("final"):
                    follow(errand, reports)
                    continue
                pool.mailbox.forget.remote(errand.name, errand.name)
                ended(errand, reports)
    finally:
        if not pool.silent:
            ray.get([pool.mailbox.stop.remote(errand.name) for errand, _ in waiting.values()])


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again: Tune leaves a handler behind that only takes a note."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
