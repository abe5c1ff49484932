"""The scores of an arm's trials with one seed, and how many of them a budget allows (docs/METHODS.md section 6a)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lethe.config.benchmarks import BENCHMARKS
from lethe.config.metrics import Direction
from lethe.config.verdict import Criterion
from lethe.records import Metrics, StudyRecord, TrialRecord
from lethe.reporting.comparison.flops import model_shape, training_flops
from lethe.reporting.trial_views import metric_value
from lethe.search.objectives import ObjectiveSpace
from lethe.search.pareto import Floats
from lethe.search.verdict import judge

Mask = NDArray[np.bool_]
UTILITY = "utility"  # the objective whose gain is a score


@dataclass(frozen=True)
class Score:
    """A number that an arm's trials with one seed have together."""

    name: str
    better: Direction
    meaning: str

    @property
    def sign(self) -> float:
        """1 where a larger score is better, else -1."""
        return 1.0 if self.better == "maximize" else -1.0


VOLUME = Score("volume", "maximize", "hypervolume of the trials")
BEST_UTILITY = Score("utility", "maximize", "largest gain in utility among trials that meet every criterion")
EPOCHS = Score("epochs", "minimize", "fewest epochs until the criterion of extraction is met")


@dataclass(frozen=True)
class Budget:
    """A way to give both arms as much: `name` in files, `label` in sentences; `note` where it is no first choice."""

    name: str
    label: str
    note: str = ""

    @property
    def short(self) -> str:
        """The label in a word."""
        return self.label.removeprefix("equal ")


TRIALS = Budget("trials", "equal trials")
CPU_TIME = Budget("time", "equal time")
WALL_TIME = Budget("time", "equal time", "by the wall clock, since these records lack cpu_seconds")
FLOPS = Budget("flops", "equal FLOPs")


@dataclass(frozen=True)
class ArmScores:
    """What the n trials of an arm with one seed give, in the order of their numbers.

    `gains` [n, k]: of the objectives with a floor, 0 where a trial is not feasible; `utility` [n]: the gain of trials
    that meet every criterion, else minus infinity; `epochs` [n]: until the criterion of extraction was met by a
    feasible trial, else `never`. A score that the study does not have is None. `costs`: [n] by the name of a budget.
    """

    gains: Floats
    utility: Floats | None
    epochs: Floats | None
    never: float
    costs: Mapping[str, Floats]

    def of(self, drawn: Mask) -> dict[str, Floats]:
        """Return each score by name [r] of r sets of trials; `drawn` [m, r] says which of the first m are in a set."""
        count = len(drawn)
        found = {VOLUME.name: hypervolumes(self.gains[:count], drawn)}
        if self.utility is not None:
            best = _best(self.utility[:count], drawn, -math.inf)
            found[BEST_UTILITY.name] = np.where(np.isfinite(best), best, 0.0)
        if self.epochs is not None:
            found[EPOCHS.name] = -_best(-self.epochs[:count], drawn, -self.never)
        return found

    def first(self, count: int) -> dict[str, float]:
        """Return each score of the first `count` trials."""
        return {name: float(value[0]) for name, value in self.of(np.ones((count, 1), dtype=np.bool_)).items()}

    def resampled(self, count: int, times: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Return each score [times] of as many trials drawn with replacement from the first `count`."""
        drawn = np.zeros((count, times), dtype=np.bool_)
        if count:
            np.put_along_axis(drawn, rng.integers(count, size=(count, times)), True, axis=0)
        return self.of(drawn)

    def affordable(self, budget: str, limit: float) -> int:
        """Return how many trials, from the first on, cost no more than `limit` together."""
        return int((np.cumsum(self.costs[budget]) <= limit).sum())

    def total(self, budget: str) -> float:
        """Return the cost of all trials."""
        return float(np.cumsum(self.costs[budget])[-1]) if len(self.costs[budget]) else 0.0


def equal_budgets(budget: str, base: ArmScores, other: ArmScores) -> tuple[int, int]:
    """Return how many trials of each arm are counted: with equal trials all, else those that cost no more than all
    trials of the cheaper arm."""
    limit = min(base.total(budget), other.total(budget))
    return base.affordable(budget, limit), other.affordable(budget, limit)


def hypervolumes(points: Floats, drawn: Mask) -> Floats:
    """Return the hypervolume [r] above the origin of r sets of `points` [n, k], each of which is exact.

    `drawn` [n, r] says which points are in a set. The first axis is cut where a point ends: between two ends the volume
    is that of the other axes over the points that reach so far.
    """
    inside = (points > 0).all(axis=1)
    points, drawn = points[inside], drawn[inside]
    if points.shape[1] == 1:
        return _best(points[:, 0], drawn, 0.0)
    order = np.argsort(-points[:, 0], kind="stable")
    points, drawn = points[order], drawn[order]
    widths = points[:, 0] - np.append(points[1:, 0], 0.0)[: len(points)]
    total: Floats = np.zeros(drawn.shape[1])
    for count, width in enumerate(widths, 1):
        if width:
            total += width * hypervolumes(points[:count, 1:], drawn[:count])
    return total


def _best(values: Floats, drawn: Mask, nothing: float) -> Floats:
    """Return the largest value [r] of each set, `nothing` where it is larger or the set is empty."""
    found: Floats = np.where(drawn, values[:, None], -math.inf).max(axis=0, initial=nothing)
    return found


class Scoring:
    """The way from a study's `trials` to scores: its objectives and criteria, and the budgets that records allow."""

    def __init__(self, record: StudyRecord, trials: Sequence[TrialRecord]) -> None:
        self._trials = trials
        self._objectives = ObjectiveSpace.from_records(record.objectives, record.start.metrics)
        self._criteria = _criteria(record)
        self._references: dict[str, Metrics] = {"start": record.start.numbers}
        if record.oracle:
            self._references["oracle"] = record.oracle.numbers
        self._shape = model_shape(record)
        trained = (trial.params.get("schedule.epochs") for trial in trials)
        self._never = 1.0 + max((epochs for epochs in trained if isinstance(epochs, int | float)), default=0)
        self._complete = [trial for trial in trials if trial.verdict == "complete"]

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """The scores that the study's trials have."""
        judged = any(self._verdict(trial) is not None for trial in self._complete)
        extraction = any("epochs_to_criterion" in trial.metrics for trial in self._complete)
        utility = judged and UTILITY in self._objectives.names
        return (VOLUME, *[BEST_UTILITY] * utility, *[EPOCHS] * extraction)

    @cached_property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets by which its arms can be compared: without processor time by wall-clock time, without tokens or
        the model's size not by FLOPs."""
        every = self._complete or self._trials
        cpu, tokens = (all(key in trial.metrics for trial in every) for key in ("cpu_seconds", "tokens"))
        return (TRIALS, CPU_TIME if cpu else WALL_TIME, *[FLOPS] * (tokens and self._shape is not None))

    def nothing(self, score: Score) -> float:
        """Return the score of trials that found nothing."""
        return self._never if score is EPOCHS else 0.0

    def scores_of(self, trials: Sequence[TrialRecord]) -> ArmScores:
        """Return the scores of an arm's trials with one seed."""
        trials = sorted(trials, key=lambda trial: trial.number)
        values = np.array([self._values(trial) for trial in trials]).reshape(len(trials), -1)
        feasible, gains = self._objectives.feasible(values), self._objectives.gains(values)
        floored = [floor is not None for floor in self._objectives.floors]
        epochs = [self._epochs(trial) for trial in trials]
        return ArmScores(
            gains=np.where(feasible[:, None], gains, 0.0)[:, floored],
            utility=self._utility(trials, gains) if BEST_UTILITY in self.scores else None,
            epochs=np.where(feasible, epochs, self._never) if EPOCHS in self.scores else None,
            never=self._never,
            costs={budget.name: np.array([self._cost(t, budget) for t in trials]) for budget in self.budgets},
        )

    def _values(self, trial: TrialRecord) -> list[float]:
        return self._objectives.values(trial.metrics if trial.verdict == "complete" else {})

    def _utility(self, trials: Sequence[TrialRecord], gains: Floats) -> Floats:
        passes = [trial.verdict == "complete" and self._verdict(trial) == "yes" for trial in trials]
        return np.where(passes, gains[:, self._objectives.names.index(UTILITY)], -math.inf)

    def _verdict(self, trial: TrialRecord) -> str | None:
        # By what every run reports: audits of front members alone would ask more of them than of the others.
        found = judge(trial.metrics, self._references, self._criteria)
        return found.forgotten if found else None

    def _epochs(self, trial: TrialRecord) -> float:
        reports = [*trial.series, trial.metrics]
        met = any(metric_value(report, "forget") < 1 for report in reports)
        return metric_value(trial.metrics, "epochs_to_criterion") if met else self._never

    def _cost(self, trial: TrialRecord, budget: Budget) -> float:
        """Return what a trial cost: with equal trials nothing, so that all are counted. One that failed before it could
        report cost its wall-clock time, and no FLOPs."""
        if budget is TRIALS:
            return 0.0
        if budget is FLOPS:
            assert self._shape is not None
            return training_flops(self._shape, trial)
        spent = metric_value(trial.metrics, "cpu_seconds" if budget is CPU_TIME else "seconds")
        return spent if math.isfinite(spent) else max(0.0, trial.ended - trial.began)


def _criteria(record: StudyRecord) -> dict[str, Criterion]:
    """Return the study's criteria: its benchmark's, and its own on top."""
    benchmark = BENCHMARKS.get(str(record.study.get("benchmark", {}).get("name")))
    given = {name: c and Criterion.model_validate(c) for name, c in record.study.get("verdict", {}).items()}
    return {name: c for name, c in {**(benchmark.criteria if benchmark else {}), **given}.items() if c is not None}
