"""A search without Ray and without models: trials advance epoch by epoch, in whatever order a draw says."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe.pool.messages import EntryPoint, Job, Report
from lethe.pool.resources import Shape
from lethe.records import EpochReport, FinalReport, Metrics
from lethe.search.early_stopping import RungTables
from lethe.search.study_store import Proposal, StudyStore
from lethe.study.recorder import PLAN, REPORT, TrialPlan
from lethe.study.tune_searcher import Answered, Searcher, StudySearcher

EPOCHS = 5
Outcome = tuple[str, str, float]


class KilledError(Exception):
    """The session ended here."""


def plan_for(proposal: Proposal) -> TrialPlan:
    """A plan that nothing carries out."""
    job = Job(proposal.recipe.digest(), EntryPoint.NULL, {}, Shape())
    return TrialPlan(proposal.index, proposal.params, Path("nowhere"), job)


@dataclass
class Running:
    """A trial and how many epochs it has done."""

    plan: TrialPlan
    epoch: int = 0


class Simulation:
    """`found` has every ended trial by index: what it was and how it ended. Runs are a function of their recipe."""

    def __init__(self, store: StudyStore, groups: int, speed: int, rungs: RungTables | None = None) -> None:
        self.store, self.groups, self.rungs = store, groups, rungs
        self.draw = random.Random(speed)
        self.found: dict[int, Outcome] = {}
        self.known: dict[str, FinalReport] = {}  # results by run, as run folders keep them

    def go(self, trials: int, kill_after: int | None = None, **options: Any) -> dict[int, Outcome]:
        """Run all trials; raise KilledError after so many epochs of all of them together."""
        searcher = StudySearcher(self.store, trials, lambda: self.groups, self._plan, **options)
        running: dict[str, Running] = {}
        asked = ended = epochs = 0
        while True:
            config = searcher.suggest(str(asked)) if ended == 0 else Searcher.FINISHED
            if isinstance(config, dict):
                running[str(asked)] = Running(config[PLAN])
                asked += 1
                continue
            if not running:
                assert config == Searcher.FINISHED, "nothing runs and nothing is proposed"
                return self.found
            epochs += 1
            if epochs == kill_after:
                raise KilledError
            trial = self.draw.choice(sorted(running))
            report = self._step(running[trial])
            if report is not None:
                plan = running.pop(trial).plan
                stopped = isinstance(report, EpochReport)
                self._ended(plan, FinalReport(verdict="stopped", values=report.values) if stopped else report)
                searcher.on_trial_complete(trial, {REPORT: report})

    def _plan(self, proposal: Proposal) -> TrialPlan | Answered:
        plan = plan_for(proposal)
        if plan.run in self.known:
            self._ended(plan, self.known[plan.run])
            return Answered(self.known[plan.run])
        return plan

    def _step(self, running: Running) -> Report | None:
        """One more epoch; the last report if the trial ends with it."""
        running.epoch += 1
        plan, values = running.plan, curve(running.plan.params, running.epoch)
        if running.epoch == EPOCHS:
            return FinalReport(verdict="complete", values=values)
        compared = [values["forget"], values["utility"]]
        entry = self.rungs and self.rungs.decide(plan.run, plan.number, running.epoch, compared)
        return EpochReport(values=values) if entry and not entry.goes_on else None

    def _ended(self, plan: TrialPlan, report: FinalReport) -> None:
        self.known[plan.run] = report
        self.found[plan.number] = (plan.run, report.verdict, report.values["forget"])


def curve(params: dict[str, Any], epoch: int) -> Metrics:
    """A made-up trade-off: large rates forget, small ones keep."""
    rate = (math.log10(params["optimizer.learning_rate"]) + 5) / 3
    spoil = 0.1 * (params["adapter.name"] == "full")
    strength = min(1.0, rate * (0.4 + 0.15 * epoch))
    return {"epoch": epoch, "forget": 0.9 - 0.8 * strength + spoil, "utility": 0.6 - 0.5 * rate**2 * epoch / EPOCHS}
