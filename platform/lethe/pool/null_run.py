"""A run that does nothing, for measurements of the pool's own costs and tests in which processes die."""

from __future__ import annotations

import os
import time

from pydantic import Field

from lethe.pool.worker import Ranks
from lethe.records import EpochReport, FinalReport, Metrics
from lethe.unlearning.outcome import ReportFunction
from lethe.unlearning.requests import Request

PID = "pid_"  # of rank 0, 1, ...


class NullRequest(Request):
    """A run of `epochs` epochs of `seconds` seconds each, with the same `metrics` in every report.

    `fails`: the message of the error with which it ends at once; empty for a run that does not fail.
    """

    epochs: int = 1
    seconds: float = 0.0
    metrics: Metrics = Field(default_factory=dict)
    fails: str = ""


def run_nothing(request: NullRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Sleep and report `epochs` times; the last report is the result. Entry point NULL.

    Raises ValueError where the request says that it fails.
    """
    if request.fails:
        raise ValueError(request.fails)
    pids = {f"{PID}{rank}": float(pid) for rank, pid in enumerate(ranks.gather(os.getpid()))}
    for epoch in range(1, request.epochs + 1):
        time.sleep(request.seconds)
        values = {"epoch": epoch, "optimizer_step": epoch, **pids, **request.metrics}
        if epoch < request.epochs:
            report(values)
    return FinalReport(verdict="complete", values=values)


def pids_of(report: EpochReport | FinalReport) -> list[int]:
    """Return the process ids of the ranks, by rank, in a report of `run_nothing`."""
    return [int(value) for name, value in report.values.items() if name.startswith(PID)]
