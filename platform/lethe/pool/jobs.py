"""Many jobs that are no trials, such as confirmations and audits, run until all have ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import ray

from lethe.errors import StudyBrokenError
from lethe.interrupts import interrupt, may_take_long
from lethe.pool.messages import Job, Report
from lethe.pool.run_queue import RunQueue
from lethe.pool.worker_pool import Pool
from lethe.records import EpochReport, FinalReport

WAIT_S = 1.0

OnJobEnd = Callable[[Job, list[EpochReport], FinalReport], None]
OnReport = Callable[[Job, EpochReport], None]
OnProgress = Callable[[Job, float], None]


def run_jobs(
    pool: Pool,
    jobs: Iterable[Job],
    ended: OnJobEnd,
    reported: OnReport = lambda *_: None,
    progressed: OnProgress | None = None,
) -> None:
    """Run all `jobs` and call `ended` with each and its reports, in the order in which they end; `reported` with each
    report before the last as it comes; `progressed` between reports with a job and the share of it that is done.

    Ctrl-C raises KeyboardInterrupt; what has not ended then is stopped. Raises StudyBrokenError once no group can be
    had.
    """
    pending: dict[ray.ObjectRef[Report | None], tuple[Job, list[EpochReport]]] = {}

    def submit(job: Job) -> None:
        ray.get(pool.queue.call(RunQueue.submit, job, job.run))

    def follow(job: Job, reports: list[EpochReport]) -> None:
        pending[pool.queue.call(RunQueue.next_report, job.run, len(reports))] = job, reports

    for job in jobs:
        submit(job)
        follow(job, [])
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=WAIT_S)
            if not ready and pool.broken:
                raise StudyBrokenError(pool.broken)
            if not ready and progressed:
                steps = ray.get(pool.queue.call(RunQueue.progress))
                for job, _ in pending.values():
                    done, total = steps.get(job.run, (0, 0))
                    if done:
                        progressed(job, done / total)
            for reference in ready:
                job, reports = pending.pop(reference)
                report = ray.get(reference)
                if report is None:  # a queue that was started again knows nothing of it
                    submit(job)
                    follow(job, reports)
                elif isinstance(report, EpochReport):
                    follow(job, [*reports, report])
                    reported(job, report)
                elif report.verdict == "interrupted":
                    raise StudyBrokenError(report.reason)
                else:
                    pool.queue.call(RunQueue.withdraw, job.run, job.run)
                    ended(job, reports, report)
    finally:
        if not pool.lost:
            ray.get([pool.queue.call(RunQueue.stop, job.run) for job, _ in pending.values()])


@contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt again inside the block, which keeps what is finished. Tune leaves a
    handler behind that only takes a note."""
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with may_take_long():
            yield
    finally:
        signal.signal(signal.SIGINT, before)
