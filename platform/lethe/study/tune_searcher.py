"""The study's store as a Ray Tune searcher, and its early stopping as a Ray Tune scheduler.

With `tune_loop` and `recorder` the only files of the search that know Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search.searcher import Searcher

from lethe.config.search import AnyHalving
from lethe.config.study import Study
from lethe.pool.messages import Report
from lethe.pool.run_queue import RunQueueClient
from lethe.records import EpochReport, FinalReport
from lethe.search.early_stopping import RungEntry, RungTables, read_entries, rung_rule, write_entries
from lethe.search.objectives import ObjectiveSpace, numeric_values
from lethe.search.study_store import DeterministicOrder, InfeasibleProposalError, Proposal, StudyStore
from lethe.search.trial_state import INTERRUPTED
from lethe.study.recorder import PLAN, QUEUE, TrialPlan, plan_of, report_of


@dataclass(frozen=True)
class Answered:
    """A proposal that needs no trial: its run's last report is known, or it cannot run (verdict infeasible)."""

    report: FinalReport


MakePlan = Callable[[Proposal], TrialPlan | Answered]


class StudySearcher(Searcher):
    """Proposes while a worker group is free, up to the budget of trials; tells the store how each one ended.

    Ray's own OptunaSearch tells stopped trials as complete, leaves those with a NaN RUNNING and has no constraints.
    Nothing of it is saved or pickled: the truth is in the storage, and a resume is a new searcher on it.
    """

    def __init__(
        self,
        store: StudyStore,
        trials: int,
        slots: Callable[[], int],
        make_plan: MakePlan,
        ends: Callable[[], bool] = lambda: False,
        ended: Callable[[TrialPlan], FinalReport | None] = lambda plan: None,
        queue: RunQueueClient | None = None,
    ) -> None:
        """`slots()` is the number of live worker groups; `make_plan` makes a proposal ready to run; `ends()`, asked
        before each proposal, says whether there should be no more; `ended(plan)` is the last report of a trial that
        has ended, whatever became of its actor; `queue` is passed on to Tune's trials."""
        super().__init__()
        self._store, self._trials, self._slots, self._make_plan, self._ends = store, trials, slots, make_plan, ends
        self._ended, self._queue = ended, queue
        self._order = DeterministicOrder(store)
        self._numbers: dict[str, int] = {}  # Optuna's, by Tune's trial
        self._plans: dict[int, TrialPlan] = {}  # of running trials, by Optuna's number
        self._orphaned: list[int] = []  # running trials whose actor died

    # Ray documents FINISHED, a string, as an answer and annotates it away.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # as Ray documents it
        """Return a Tune config; None while no group is free or the last trials run; FINISHED when the budget is used
        up."""
        if self._orphaned and not self._ends():
            return self._tune_config(trial_id, self._orphaned.pop(0))
        while self._store.remaining(self._trials) > self._store.pending and not self._ends():
            if self._order.running >= self._slots() or not self._order.ready():
                return None
            try:
                proposal = self._store.ask()
            except InfeasibleProposalError:
                continue
            plan = self._plan(proposal)
            if isinstance(plan, Answered):
                self._order.tell(proposal.number, _store_report(plan.report))
                continue
            self._plans[proposal.number] = plan
            return self._tune_config(trial_id, proposal.number)
        self._order.close()
        # As long as one runs its actor may die and need another trial of Tune's to stand in for it.
        return None if self._numbers else Searcher.FINISHED

    def _tune_config(self, trial_id: str, number: int) -> dict[str, Any]:
        self._numbers[trial_id] = number
        return {PLAN: self._plans[number], QUEUE: self._queue}

    def _plan(self, proposal: Proposal) -> TrialPlan | Answered:
        try:
            return self._make_plan(proposal)
        except BaseException:  # Ctrl-C, too: no trial stays RUNNING in Optuna
            self._store.interrupted(proposal.number, "its configuration could not be made")
            raise

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the store how a trial ended. Tune has no result of ours for one that ended before its first report.

        An error is that of Tune's actor, which only passes reports on: the next Tune trial stands in for it.
        """
        number = self._numbers.get(trial_id)
        if number is None:
            return
        known = self._ended(self._plans[number]) if error else None
        if error and known is None:
            self._orphaned.append(number)
            del self._numbers[trial_id]
            return
        outcome = _store_report(known or report_of(result))
        if not outcome.keys() & {"verdict", *self._store.objectives.names}:
            outcome = {"verdict": INTERRUPTED, "reason": "ended before its first report"}
        self._order.tell(number, outcome)
        del self._plans[number], self._numbers[trial_id]

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing: the truth is in the storage."""

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Do nothing: the truth is in the storage."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the truth is in the storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the truth is in the storage."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its configuration before it starts, where connections do not belong."""
        return {}


def _store_report(report: Report | None) -> dict[str, Any]:
    """Return a trial's last report as `StudyStore.tell` takes it: metrics and, of a final one, verdict and reason."""
    if report is None:
        return {}
    end = {"verdict": report.verdict, "reason": report.reason} if isinstance(report, FinalReport) else {}
    return {**report.values, **end}


class RungScheduler(FIFOScheduler):
    """Stops a trial at the report by which a rung tells it to; its searcher hears a last report without a verdict.

    `keep(run, entries)` is called before an answer is given: what it writes down is what a resume restores. Nothing is
    saved or pickled by Ray.
    """

    def __init__(self, rungs: RungTables, resource: str, keep: Callable[[str, tuple[RungEntry, ...]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's, without annotations
        self._rungs, self._resource, self._keep = rungs, resource, keep

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Return STOP for a report at which a rung stops the trial, else CONTINUE."""
        plan, report = plan_of(trial), report_of(result)
        if not isinstance(report, EpochReport) or self._resource not in report.values:
            return TrialScheduler.CONTINUE
        values = numeric_values(report.values, self._rungs.rule.names)
        entry = self._rungs.decide(plan.run, plan.number, report.values[self._resource], values)
        if entry is None:
            return TrialScheduler.CONTINUE
        self._keep(plan.run, self._rungs.entries(plan.run))
        return TrialScheduler.CONTINUE if entry.goes_on else TrialScheduler.STOP

    def reason(self, run: str) -> str:
        """Return why a run was stopped; empty if it was not."""
        entries = self._rungs.entries(run)
        if not entries or entries[-1].goes_on:
            return ""
        last = entries[-1]
        return f"place {last.place + 1} of {last.of} at {self._resource.replace('_', ' ')} {last.resource:g}"

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its whole configuration before it starts."""
        return {}


def rung_scheduler(study: Study, objectives: ObjectiveSpace, runs: Path, groups: int | None) -> RungScheduler | None:
    """Return the scheduler of the study's early stopping, None where it has none; `runs` is the folder of the study's
    run folders, whose rung entries are taken up."""
    stopping = study.early_stopping
    if not isinstance(stopping, AnyHalving):
        return None
    rungs = RungTables(rung_rule(stopping, study, objectives), groups)
    rungs.restore(read_entries(runs))
    return RungScheduler(rungs, stopping.resource, lambda run, entries: write_entries(runs / run, entries))
