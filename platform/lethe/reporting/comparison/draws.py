"""Draw by draw: where two arms of a pair drew the same settings, how often the one came out better than the other.

Arms with one seed draw alike as long as their sampler is random and their spaces are the same. Trials that share a draw
are compared with each other, which shows what the spread over chosen trials hides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import Arm
from lethe.reporting.comparison.edges import searched
from lethe.reporting.comparison.pairs import Pair, pairs
from lethe.reporting.facts import value

FEWEST = 6  # equal draws; with fewer no sign test comes below .05


@dataclass(frozen=True)
class Draws:
    """A pair by one objective: in how many equal draws the other arm is better than the base, worse, or the same."""

    pair: Pair
    objective: str
    better: int
    worse: int
    same: int

    @property
    def p(self) -> float:
        """Two-sided sign test of those that differ; 1 where none does."""
        differ = self.better + self.worse
        return float(binomtest(self.better, differ).pvalue) if differ else 1.0

    def __str__(self) -> str:
        count = self.better + self.worse + self.same
        told = f"{self.objective} better in {self.better}, worse in {self.worse} of {count} equal draws"
        return f"{self.pair.other.name} against {self.pair.base.name}: {told} (sign test p {self.p:.2g})."


def draws(record: StudyRecord, arms: Sequence[Arm]) -> list[Draws]:
    """Every pair with enough equal draws, by every objective."""
    found = []
    for pair in pairs(arms):
        couples = list(_couples(record, pair))
        if len(couples) >= FEWEST:
            found += [_counted(pair, goal, couples) for goal in record.objectives]
    return found


def _couples(record: StudyRecord, pair: Pair) -> Iterator[tuple[TrialRecord, TrialRecord]]:
    """Complete trials of one seed with equal draws, the base's first."""
    for base, other in zip(pair.base.seeds, pair.other.seeds, strict=True):
        drawn = {_draw(record, pair.base, trial): trial for trial in base.trials if trial.verdict == "complete"}
        for trial in other.trials:
            twin = drawn.get(_draw(record, pair.other, trial))
            if twin is not None and trial.verdict == "complete":
                yield twin, trial


def _draw(record: StudyRecord, arm: Arm, trial: TrialRecord) -> tuple[tuple[str, object], ...]:
    return tuple((key, trial.params[key]) for key in searched(record, arm.name) if key in trial.params)


def _counted(pair: Pair, goal: ObjectiveRecord, couples: Sequence[tuple[TrialRecord, TrialRecord]]) -> Draws:
    sign = 1 if goal.direction == "maximize" else -1
    gains = [sign * (value(other.metrics, goal.metric) - value(base.metrics, goal.metric)) for base, other in couples]
    known = [gain for gain in gains if not math.isnan(gain)]
    better, worse = sum(gain > 0 for gain in known), sum(gain < 0 for gain in known)
    return Draws(pair, goal.metric, better, worse, len(known) - better - worse)
