"""The study's store as a Ray Tune searcher. With the scheduler, the only file of the search that knows Ray.

MO-ASHA as a Ray Tune scheduler. With the searcher, the only file of the search that knows Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe.config.search import MoAsha
from lethe.config.study import Study
from lethe.search.early_stopping import RungEntry, RungTables, read_entries, rung_rule, write_entries
from lethe.search.objectives import ObjectiveSpace, numeric_values
from lethe.search.study_store import DeterministicOrder, InfeasibleProposalError, Proposal, StudyStore
from lethe.search.trial_state import INTERRUPTED
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search.searcher import Searcher

_NESTED = "report/"


@dataclass(frozen=True)
class Answered:
    """A proposal that needs no trial: its run's last report is known, or it cannot run (verdict infeasible)."""

    report: Mapping[str, Any]


MakeConfig = Callable[[Proposal], dict[str, Any] | Answered]


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
        make_config: MakeConfig,
        ends: Callable[[], bool] = lambda: False,
        ended: Callable[[dict[str, Any]], Mapping[str, Any] | None] = lambda config: None,
    ) -> None:
        """`slots()` is the number of live worker groups; `make_config` gives a Tune trial's config; `ends()`, asked
        before each proposal, says whether there should be no more; `ended(config)` is the last report of a trial that
        has ended, whatever became of its actor."""
        super().__init__()
        self._store, self._trials, self._slots, self._make_config, self._ends = store, trials, slots, make_config, ends
        self._ended = ended
        self._turns = DeterministicOrder(store)
        self._numbers: dict[str, int] = {}
        self._configs: dict[int, dict[str, Any]] = {}
        self._again: list[int] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A config; None while no group is free or the last trials run; FINISHED when the budget is used up."""
        if self._again and not self._ends():
            return self._under(trial_id, self._again.pop(0))
        while self._store.remaining(self._trials) > self._store.pending and not self._ends():
            if self._turns.running >= self._slots() or not self._turns.ready():
                return None
            try:
                proposal = self._store.ask()
            except InfeasibleProposalError:
                continue
            config = self._config(proposal)
            if isinstance(config, Answered):
                self._turns.tell(proposal.number, config.report)
                continue
            self._configs[proposal.number] = config
            return self._under(trial_id, proposal.number)
        self._turns.close()
        # As long as one runs its actor may die and need another trial of Tune's to stand in for it.
        return None if self._numbers else Searcher.FINISHED

    def _under(self, trial_id: str, number: int) -> dict[str, Any]:
        self._numbers[trial_id] = number
        return self._configs[number]

    def _config(self, proposal: Proposal) -> dict[str, Any] | Answered:
        try:
            return self._make_config(proposal)
        except BaseException:
            self._store.interrupted(proposal.number, "its configuration could not be made")
            raise

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune has no result of ours for a trial that ended before its first report.

        An error is that of Tune's actor, which only passes reports on: the next Tune trial stands in for it.
        """
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        known = self._ended(self._configs[number]) if error else None
        if error and known is None:
            self._again.append(number)
            return
        del self._configs[number]
        report = known or report_payload(result or {})
        if not report.keys() & {"verdict", *self._store.objectives.names}:
            report = {"verdict": INTERRUPTED, "reason": "ended before its first report"}
        self._turns.tell(number, report)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing."""

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its whole configuration before it starts; callables and connections do not belong there."""
        return {}


def report_payload(result: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's last report: Tune flattens what `step` returned as {"report": ...} and adds keys of its own."""
    nested = {key.removeprefix(_NESTED): value for key, value in result.items() if key.startswith(_NESTED)}
    return nested or dict(result)


class RungScheduler(FIFOScheduler):
    """Stops a trial at the report by which a rung tells it to; its searcher hears a last report without a verdict.

    Trials' configs carry `run` and `number`. `keep(run, entries)` is called before an answer is given: what it writes
    down is what a resume restores. Nothing is saved or pickled by Ray.
    """

    def __init__(self, rungs: RungTables, resource: str, keep: Callable[[str, tuple[RungEntry, ...]], None]) -> None:
        super().__init__()
        self._rungs, self._resource, self._keep = rungs, resource, keep

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP."""
        report, run = report_payload(result), trial.config["run"]
        if report.get("final") or self._resource not in report:
            return TrialScheduler.CONTINUE
        values = numeric_values(report, self._rungs.rule.names)
        entry = self._rungs.decide(run, trial.config["number"], float(report[self._resource]), values)
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


def rung_scheduler(study: Study, objectives: ObjectiveSpace, runs: Path, groups: int | None) -> RungScheduler | None:
    """Return the scheduler of the study's early stopping, None where it has none; `runs` is the folder of the study's
    run folders, whose rung entries are taken up."""
    stopping = study.early_stopping
    if not isinstance(stopping, MoAsha):
        return None
    rungs = RungTables(rung_rule(stopping, study, objectives), groups)
    rungs.restore(read_entries(runs))
    return RungScheduler(rungs, stopping.resource, lambda run, entries: write_entries(runs / run, entries))
