"""What a trial's last report says about it: the state that Optuna is told, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from lethe.search.frame import Frame

INTERRUPTED = "interrupted"
"""The verdict of a trial that ended for reasons of its session: it does not count and is proposed again."""


@dataclass(frozen=True)
class Verdict:
    """`values` are the objectives in the frame's order where all are finite, whatever the state."""

    name: str
    state: TrialState
    values: list[float] | None
    reason: str = ""


def judge(report: Mapping[str, Any], frame: Frame) -> Verdict:
    """COMPLETE for a full-budget run with every objective finite; PRUNED for one that was stopped; else FAIL.

    `verdict` says how the run ended; a report without one is the last that a stopped trial sent. A complete run may
    carry `full_budget: false`, which makes it a stopped one. Other verdicts (diverged, out_of_memory, infeasible,
    error, lost) are results of the trial, with their `reason`.
    """
    name = str(report.get("verdict") or "stopped")
    reason = str(report.get("reason") or "")[:1000]
    values = frame.values(report)
    bad = [f"{n} is {report.get(n)}" for n, v in zip(frame.names, values, strict=True) if not math.isfinite(v)]
    finite = None if bad else values
    if name == "complete" and bad:
        return Verdict("non_finite", TrialState.FAIL, None, "; ".join(bad))
    if name == "complete" and report.get("full_budget", True):
        return Verdict(name, TrialState.COMPLETE, finite, reason)
    if name in ("complete", "stopped"):
        return Verdict("stopped", TrialState.PRUNED, finite, reason)
    return Verdict(name, TrialState.FAIL, finite, reason)
