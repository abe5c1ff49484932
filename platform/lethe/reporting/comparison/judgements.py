"""Settings at the edge: chosen values so near to an end of their range that better ones may lie beyond it.

What came out, in plain words and no more than the numbers say: which arm of a pair is better, and by how much.

Draw by draw: where two arms of a pair drew the same settings, how often the one came out better than the other.

Arms with one seed draw alike as long as their sampler is random and their spaces are the same. Trials that share a draw
are compared with each other, which shows what the spread over chosen trials hides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from lethe.config.loading import overlay
from lethe.config.space import Choice, Parameter, Scalar
from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import FIRST, HYPERVOLUME, SECOND, Arm, Cell, Column
from lethe.reporting.comparison.tables import mean, spread
from lethe.reporting.scales import format_count, format_fixed, format_setting
from lethe.reporting.trial_views import value
from pydantic import TypeAdapter
from scipy.stats import binomtest

NEAR = 0.05  # of the range, on the scale that the search samples
End = Literal["low", "high"]


@dataclass(frozen=True)
class BoundaryHit:
    """A setting that an arm's chosen trials have at an end of what was searched, `at` these seeds, trials, values."""

    arm: str
    key: str
    end: End
    searched: str
    at: tuple[tuple[int, int, Scalar], ...]

    def __str__(self) -> str:
        seeds = ", ".join(str(seed) for seed, _, _ in self.at)
        noun = "seed" if len(self.at) == 1 else "seeds"
        return f"{self.arm} {self.key} at the {self.end} end of {self.searched} ({noun} {seeds})"


def boundary_hits(record: StudyRecord, of: Iterable[Arm]) -> list[BoundaryHit]:
    """In the order of arms and the study's space."""
    return [
        BoundaryHit(arm.name, key, end, _words(parameter), at)
        for arm in of
        for key, parameter in searched(record, arm.name).items()
        for end in get_args(End)
        if (at := _at(arm, key, parameter, end))
    ]


def _at(arm: Arm, key: str, parameter: Parameter, end: End) -> tuple[tuple[int, int, Scalar], ...]:
    found = ((each.seed, each.chosen.number, each.chosen.params.get(key)) for each in arm.seeds if each.chosen)
    return tuple((seed, number, value) for seed, number, value in found if edge(value, parameter) == end)


def searched(record: StudyRecord, arm: str) -> dict[str, Parameter]:
    """The study's space with what the arm lays over it; an arm's trials have those that it reads."""
    study = record.study
    base = {"run": study.get("run", {}), "space": study.get("space", {})}
    space: Mapping[str, Any] = overlay(base, study.get("compare", {}).get("arms", {}).get(arm, {}))["space"]
    return {key: _adapter().validate_python(given) for key, given in space.items()}


def edge(value: Scalar, parameter: Parameter) -> End | None:
    """The end that `value` is at: within `NEAR` of a range, or the least or greatest of three or more numbers.

    Two choices have no inside, words have no order, and a range of one value has no ends.
    """
    if not _is_number(value):
        return None
    if isinstance(parameter, Choice):
        choices = parameter.choices
        if len(choices) < 3 or not all(map(_is_number, choices)):
            return None
        return "low" if value == min(choices) else "high" if value == max(choices) else None
    low, high, at = float(parameter.low), float(parameter.high), float(value)
    if low == high:
        return None
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    share = (at - low) / (high - low)
    return "low" if share <= NEAR else "high" if share >= 1 - NEAR else None


def _words(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(map(format_setting, parameter.choices))
    return f"{format_setting(parameter.low)} to {format_setting(parameter.high)}{', log' if parameter.log else ''}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _adapter() -> TypeAdapter[Parameter]:
    return TypeAdapter(Parameter)


PairVerdict = Literal["better", "worse", "within the spread", "equal", "without a spread", "without a number"]


@dataclass(frozen=True)
class ArmPair:
    """Two arms that differ in one thing, which is `subject`."""

    subject: str
    base: Arm
    other: Arm


@dataclass(frozen=True)
class Judgement:
    """A pair by one column, in its unit. `difference` is the other's mean less the base's; its `spread` is the root
    of the sum of both squared, None where an arm has fewer than two numbers."""

    pair: ArmPair
    column: Column
    base: Cell
    other: Cell

    @property
    def difference(self) -> float:
        """NaN where an arm has no number."""
        return self.other.mean - self.base.mean

    @property
    def spread(self) -> float | None:
        """Of the difference of two single seeds."""
        if self.base.spread is None or self.other.spread is None:
            return None
        return math.hypot(self.base.spread, self.other.spread)

    @property
    def verdict(self) -> PairVerdict:
        """Better or worse only beyond the spread."""
        if not math.isfinite(self.difference):
            return "without a number"
        if self.difference == 0:
            return "equal"
        if self.spread is None:
            return "without a spread"
        if abs(self.difference) <= self.spread:
            return "within the spread"
        return "better" if (self.difference > 0) == (self.column.better == "maximize") else "worse"


def arm_pairs(arms: Sequence[Arm]) -> list[ArmPair]:
    """FO-X with SO-X, and X+Y with X."""
    named = {arm.name: arm for arm in arms}
    orders = [
        ArmPair("second order", arm, named[twin])
        for arm in arms
        if arm.name.startswith(FIRST) and (twin := SECOND + arm.name.removeprefix(FIRST)) in named
    ]
    parts = [(arm, *arm.name.rpartition("+")) for arm in arms]
    return orders + [ArmPair(added, named[base], arm) for arm, base, _, added in parts if base in named]


def judgements(arms: Sequence[Arm], columns: Iterable[Column]) -> list[Judgement]:
    """Every pair by every column."""
    return [Judgement(p, c, p.base.shown(c), p.other.shown(c)) for c in columns for p in arm_pairs(arms)]


def describe_pair(arms: Sequence[Arm], found: Iterable[Judgement]) -> list[str]:
    """In short: the largest hypervolumes, the arms that are nowhere above the floors, how the pairs came out."""
    return [*_volumes(arms), *_tallies(found)]


def sentence(one: Judgement) -> str:
    """One pair by one column."""
    base, other, head = one.pair.base, one.pair.other, one.column.head
    told = " against ".join(_told(cell, one.column) for cell in (one.other, one.base))
    given = f"mean {head} {told} over {_seeds(one)} {_budget(one.pair)}"
    return f"{other.name} against {base.name}: {given}; {_outcome(one)}."


def _outcome(one: Judgement) -> str:
    if one.verdict == "without a number":
        return "an arm has no number, so they cannot be compared"
    if one.verdict == "equal":
        return "the means are equal"
    sign = "+" if one.difference > 0 else ""
    span = "" if one.spread is None else f" ± {format_fixed(one.spread, one.column.decimals)}"
    moved = f"the difference is {sign}{format_fixed(one.difference, one.column.decimals)}{span}"
    if one.verdict == "without a spread":
        return f"{moved}, with no spread to judge it by"
    if one.verdict == "within the spread":
        return f"{moved}, within the spread"
    return f"{moved}, so {one.pair.subject} is {one.verdict} by more than the spread"


def _budget(pair: ArmPair) -> str:
    base, other = (sum(len(each.trials) for each in arm.seeds) for arm in (pair.base, pair.other))
    if base != other:
        return f"at unequal budget ({other} against {base} trials)"
    return f"at equal budget ({format_count(base, 'trial')} each)"


def _seeds(one: Judgement) -> str:
    other, base = len(one.other.known), len(one.base.known)
    return f"{other} and {base} seeds" if other != base else format_count(base, "seed")


def _told(cell: Cell, column: Column) -> str:
    return f"{mean(cell, column)} {spread(cell, column)}".strip()


def _volumes(arms: Sequence[Arm]) -> list[str]:
    volumes = {arm.name: arm.cell(HYPERVOLUME) for arm in arms}
    best = sorted((name for name in volumes if volumes[name].mean > 0), key=lambda name: -volumes[name].mean)[:3]
    column = Column(HYPERVOLUME, HYPERVOLUME)
    told = [f"{name} {_told(volumes[name], column)}" for name in best]
    begun = [arm for arm in arms if volumes[arm.name].known]
    none = [arm.name for arm in begun if not any(trial.feasible for trial in arm.complete)]
    return [
        *([f"Largest mean hypervolumes: {', '.join(told)}."] if told else []),
        *([f"No trial of any seed is above the floors: {', '.join(none)}."] if none else []),
    ]


def _tallies(found: Iterable[Judgement]) -> list[str]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for one in found:
        counts.setdefault((one.pair.subject, one.column.head), Counter())[one.verdict] += 1
    return [
        f"{subject[0].upper()}{subject[1:]} by mean {head}: "
        f"{', '.join(f'{verdict} in {n}' for verdict, n in tally.items())} of {format_count(tally.total(), 'pair')}."
        for (subject, head), tally in counts.items()
    ]


FEWEST = 6  # equal draws; with fewer no sign test comes below .05


@dataclass(frozen=True)
class PairedTrials:
    """A pair by one objective: in how many equal draws the other arm is better than the base, worse, or the same."""

    pair: ArmPair
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


def paired_trials(record: StudyRecord, arms: Sequence[Arm]) -> list[PairedTrials]:
    """Every pair with enough equal draws, by every objective."""
    found = []
    for pair in arm_pairs(arms):
        couples = list(_couples(record, pair))
        if len(couples) >= FEWEST:
            found += [_counted(pair, goal, couples) for goal in record.objectives]
    return found


def _couples(record: StudyRecord, pair: ArmPair) -> Iterator[tuple[TrialRecord, TrialRecord]]:
    """Complete trials of one seed with equal draws, the base's first."""
    for base, other in zip(pair.base.seeds, pair.other.seeds, strict=True):
        drawn = {_draw(record, pair.base, trial): trial for trial in base.trials if trial.verdict == "complete"}
        for trial in other.trials:
            twin = drawn.get(_draw(record, pair.other, trial))
            if twin is not None and trial.verdict == "complete":
                yield twin, trial


def _draw(record: StudyRecord, arm: Arm, trial: TrialRecord) -> tuple[tuple[str, object], ...]:
    return tuple((key, trial.params[key]) for key in searched(record, arm.name) if key in trial.params)


def _counted(pair: ArmPair, goal: ObjectiveRecord, couples: Sequence[tuple[TrialRecord, TrialRecord]]) -> PairedTrials:
    sign = 1 if goal.direction == "maximize" else -1
    gains = [sign * (value(other.metrics, goal.metric) - value(base.metrics, goal.metric)) for base, other in couples]
    known = [gain for gain in gains if not math.isnan(gain)]
    better, worse = sum(gain > 0 for gain in known), sum(gain < 0 for gain in known)
    return PairedTrials(pair, goal.metric, better, worse, len(known) - better - worse)
