"""A search without Ray and without models: trials advance epoch by epoch, in whatever order a draw says."""

from __future__ import annotations

import math
import random
from typing import Any

from lethe.search.early_stopping import RungTables
from lethe.search.study_store import Proposal, StudyStore
from lethe.study.tune_searcher import Answered, Searcher, StudySearcher

EPOCHS = 5
Outcome = tuple[str, str, float]


class Killed(Exception):
    """The session ended here."""


class Simulation:
    """`found` has every ended trial by index: what it was and how it ended. Runs are a function of their recipe."""

    def __init__(self, store: StudyStore, groups: int, speed: int, rungs: RungTables | None = None) -> None:
        self.store, self.groups, self.rungs = store, groups, rungs
        self.draw = random.Random(speed)
        self.found: dict[int, Outcome] = {}
        self.known: dict[str, dict[str, Any]] = {}  # results by run, as run folders keep them

    def go(self, trials: int, kill_after: int | None = None, **options: Any) -> dict[int, Outcome]:
        """All trials; Killed after so many epochs of all of them together."""
        searcher = StudySearcher(self.store, trials, lambda: self.groups, self._config, **options)
        running: dict[str, dict[str, Any]] = {}
        asked = ended = epochs = 0
        while True:
            config = searcher.suggest(str(asked)) if ended == 0 else Searcher.FINISHED
            if isinstance(config, dict):
                running[str(asked)] = config
                asked += 1
                continue
            if not running:
                assert config == Searcher.FINISHED, "nothing runs and nothing is proposed"
                return self.found
            epochs += 1
            if epochs == kill_after:
                raise Killed
            trial = self.draw.choice(sorted(running))
            report = self._step(running[trial])
            if report is not None:
                self._ended(running.pop(trial), report)
                searcher.on_trial_complete(trial, report)

    def _config(self, proposal: Proposal) -> dict[str, Any] | Answered:
        run = proposal.recipe.digest()
        config = {"number": proposal.index, "run": run, "params": proposal.params, "epoch": 0}
        if run in self.known:
            self._ended(config, self.known[run])
            return Answered(self.known[run])
        return config

    def _step(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """One more epoch; the last report if the trial ends with it."""
        config["epoch"] += 1
        report = curve(config["params"], config["epoch"])
        if config["epoch"] == EPOCHS:
            return {**report, "verdict": "complete"}
        values = [report["forget"], report["utility"]]
        entry = self.rungs and self.rungs.decide(config["run"], config["number"], config["epoch"], values)
        return {**report, "verdict": "stopped"} if entry and not entry.goes_on else None

    def _ended(self, config: dict[str, Any], report: dict[str, Any]) -> None:
        self.known[config["run"]] = report
        self.found[config["number"]] = (config["run"], report["verdict"], report["forget"])


def curve(params: dict[str, Any], epoch: int) -> dict[str, float]:
    """A made-up trade-off: large rates forget, small ones keep."""
    rate = (math.log10(params["optimizer.learning_rate"]) + 5) / 3
    spoil = 0.1 * (params["adapter.name"] == "full")
    strength = min(1.0, rate * (0.4 + 0.15 * epoch))
    return {"epoch": epoch, "forget": 0.9 - 0.8 * strength + spoil, "utility": 0.6 - 0.5 * rate**2 * epoch / EPOCHS}
