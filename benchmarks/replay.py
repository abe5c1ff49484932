"""One search among recorded runs: what `benchmarks.early_stopping` repeats for every sampler and way of stopping.

A sampler proposes as it would in a study, and what runs is the nearest recorded run that this replay has not used yet;
the sampler is told that run's own parameters and result, so that everything it learns from was measured. One run at a
time. Random draws are plain draws without replacement.
"""

from __future__ import annotations

import json
import math
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from lethe.config.metrics import TOFU_METRICS
from lethe.config.space import Choice, build_recipe
from lethe.config.study import Study, load_study
from lethe.search.early_stopping import AreaRule, ParetoRule, RungRule, RungTables
from lethe.search.objectives import ObjectiveSpace
from lethe.search.samplers import make_sampler
from lethe.search.study_store import from_trial
from lethe.search.warm_start import distribution

GOALS = ("forget", "utility")
BETTER = tuple(TOFU_METRICS[name].better for name in GOALS)
Decide = Callable[[int, int, dict[str, float]], bool]


@dataclass
class Recorded:
    """`curves` [runs, epochs, metrics]; a run that diverged is left out: nothing of it can be replayed."""

    study: Study
    space: ObjectiveSpace
    metrics: list[str]
    params: list[dict[str, Any]]
    curves: np.ndarray
    steps: list[int]

    @classmethod
    def load(cls, path: Path) -> Recorded:
        found = json.loads(path.read_text())
        study = load_study("tofu", found["set"])
        runs = [run for run in found["runs"] if run["verdict"] == "complete"]
        curves = np.array([run["curve"] for run in runs], dtype=float)
        space = ObjectiveSpace.from_goals(study.objectives, found["start"])
        return cls(study, space, found["metrics"], [r["params"] for r in runs], curves, runs[0]["steps"])

    def column(self, name: str) -> np.ndarray:
        """[runs, epochs] of one metric."""
        return self.curves[:, :, self.metrics.index(name)]

    def objectives(self, epoch: int) -> np.ndarray:
        """[runs, 2] as reported after this epoch, from 1."""
        return np.stack([self.column(name)[:, epoch - 1] for name in GOALS], axis=1)

    @property
    def epochs(self) -> int:
        return len(self.steps)


def mo_asha(recorded: Recorded, grace: int = 1, eta: int = 2, floors: bool = True) -> Decide:
    """Return the decisions of MO-ASHA's rungs."""
    return by_rule(ParetoRule(GOALS, BETTER, recorded.space.floors if floors else (None, None), grace, eta))


def area_halving(
    recorded: Recorded,
    rungs: Sequence[int] = (1, 2),
    eta: int = 3,
    names: Sequence[str] = ("forget", "forget_probability", "utility"),
) -> Decide:
    """Return the decisions of the area rule; `rungs` count reports."""
    directions = tuple(TOFU_METRICS[name].better for name in names)
    return by_rule(AreaRule(tuple(names), directions, tuple(rungs), eta))


def by_rule(rule: RungRule) -> Decide:
    """Return the decisions of a rule, kept in tables as a study keeps them."""
    rungs = RungTables(rule)

    def decide(run: int, epoch: int, report: dict[str, float]) -> bool:
        entry = rungs.decide(str(run), run, epoch, [report[name] for name in rule.names])
        return entry is None or entry.goes_on

    return decide


def ray_asha(recorded: Recorded, metric: str, eta: int = 2) -> Decide:
    """Ray's own scheduler on one objective."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    mode = {"minimize": "min", "maximize": "max"}[TOFU_METRICS[metric].better]
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric=metric, mode=mode, max_t=recorded.epochs, grace_period=1, reduction_factor=eta
    )

    def decide(run: int, epoch: int, report: dict[str, float]) -> bool:
        trial = SimpleNamespace(trial_id=str(run))
        if trial.trial_id not in scheduler._trial_info:
            scheduler.on_trial_add(None, trial)
        return scheduler.on_trial_result(None, trial, {**report, "epoch": epoch}) != TrialScheduler.STOP

    return decide


def whole(recorded: Recorded) -> Decide:
    """No early stopping."""
    return lambda run, epoch, report: True


STOPPING: dict[str, Callable[[Recorded], Decide]] = {
    "none": whole,
    "mo_asha": mo_asha,
    "mo_asha, grace 2": partial(mo_asha, grace=2),
    "mo_asha, grace 3": partial(mo_asha, grace=3),
    "mo_asha, eta 4": partial(mo_asha, eta=4),
    "mo_asha, grace 2, eta 4": partial(mo_asha, grace=2, eta=4),
    "mo_asha, no floors": partial(mo_asha, floors=False),
    "area": area_halving,
    "area, objectives": partial(area_halving, names=GOALS),
    "area, eta 2": partial(area_halving, eta=2),
    "ASHA on forget": partial(ray_asha, metric="forget"),
    "ASHA on utility": partial(ray_asha, metric="utility"),
}


class Replay:
    """One search among recorded runs. `trace` has (steps spent, hypervolume) after every run."""

    def __init__(self, recorded: Recorded, sampler: str, seed: int, decide: Decide) -> None:
        self.recorded, self.decide, self.seed = recorded, decide, seed
        self.search = recorded.study.search.model_copy(update={"sampler": sampler, "seed": seed})
        self.left = list(range(len(recorded.params)))
        random.Random(seed).shuffle(self.left)
        self.optuna = optuna.create_study(directions=list(BETTER))
        self.steps, self.done = 0, 0
        self.found: list[list[float]] = []
        self.trace: list[tuple[int, float]] = []

    def go(self, budget: int) -> Replay:
        """Search until the budget of steps or the recorded runs are used up."""
        while self.steps < budget and self.left:
            run, noted = self._next()
            values = self._run(run)
            if self.search.sampler != "random":
                self.optuna.add_trial(self._told(run, values, noted))
            if values is not None:
                self.found.append(values)
            self.trace.append((self.steps, self.recorded.space.hypervolume(self.found) if self.found else 0.0))
        return self

    def _next(self) -> tuple[int, dict[str, Any]]:
        """The next run, and what the sampler noted with its proposal (NSGA-II: the generation)."""
        if self.search.sampler == "random":
            return self.left.pop(), {}
        self.optuna.sampler = make_sampler(self.search, len(self.trace))
        trial = self.optuna.ask()
        build_recipe(self.recorded.study.run, self.recorded.study.space, from_trial(trial))
        gaps = [_distance(self.recorded.study, trial.params, self.recorded.params[run]) for run in self.left]
        run = self.left.pop(int(np.argmin(gaps)))
        asked = self.optuna.tell(trial, state=TrialState.FAIL)
        return run, {key: value for key, value in asked.system_attrs.items() if not key.startswith("constraints")}

    def _run(self, run: int) -> list[float] | None:
        """The objectives of a whole run, None if it was stopped. Its steps are spent either way."""
        for epoch in range(1, self.recorded.epochs):
            report = dict(zip(self.recorded.metrics, self.recorded.curves[run, epoch - 1].tolist(), strict=True))
            if not self.decide(run, epoch, report):
                self.steps += self.recorded.steps[epoch - 1]
                return None
        self.steps += self.recorded.steps[-1]
        self.done += 1
        return self.recorded.objectives(self.recorded.epochs)[run].tolist()

    def _told(self, run: int, values: list[float] | None, noted: dict[str, Any]) -> optuna.trial.FrozenTrial:
        params = self.recorded.params[run]
        return create_trial(
            state=TrialState.PRUNED if values is None else TrialState.COMPLETE,
            values=values,
            params=params,
            distributions={key: distribution(self.recorded.study.space[key]) for key in params},
            system_attrs=noted,
            constraints=None if values is None else self.recorded.space.violations(values),
        )


def _distance(study: Study, a: dict[str, Any], b: dict[str, Any]) -> float:
    """Euclidean over the space, each range on [0, 1]; two choices are 1 apart."""
    total = 0.0
    for key, parameter in study.space.items():
        if isinstance(parameter, Choice):
            total += a[key] != b[key]
            continue
        x, y, low, high = (math.log(v) if parameter.log else v for v in (a[key], b[key], parameter.low, parameter.high))
        total += ((x - y) / (high - low)) ** 2
    return total
