"""MO-ASHA as a Ray Tune scheduler. With the searcher, the only file of the search that knows Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from lethe.search.frame import numbers
from lethe.search.mo_asha import Entry, Rungs
from lethe.search.searcher import report_of


class RungScheduler(FIFOScheduler):
    """Stops a trial at the report by which a rung tells it to; its searcher hears a last report without a verdict.

    Trials' configs carry `run` and `number`. `keep(run, entries)` is called before an answer is given: what it writes
    down is what a resume restores. Nothing is saved or pickled by Ray.
    """

    def __init__(self, rungs: Rungs, resource: str, keep: Callable[[str, tuple[Entry, ...]], None]) -> None:
        super().__init__()
        self._rungs, self._resource, self._keep = rungs, resource, keep

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP."""
        report, run = report_of(result), trial.config["run"]
        if report.get("final") or self._resource not in report:
            return TrialScheduler.CONTINUE
        values = numbers(report, self._rungs.rule.names)
        entry = self._rungs.reached(run, trial.config["number"], float(report[self._resource]), values)
        if entry is None:
            return TrialScheduler.CONTINUE
        self._keep(run, self._rungs.entries(run))
        return TrialScheduler.CONTINUE if entry.goes_on else TrialScheduler.STOP

    def reason(self, run: str) -> str:
        """Why a run was stopped; empty if it was not."""
        entries = self._rungs.entries(run)
        if not entries or entries[-1].goes_on:
            return ""
        last = entries[-1]
        return f"place {last.place + 1} of {last.of} at {self._resource.replace('_', ' ')} {last.resource:g}"

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its whole configuration before it starts."""
        return {}
