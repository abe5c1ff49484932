"""What came out, in plain words and no more than the numbers say: which arm of a pair is better, and by how much."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lethe.reporting.comparison.arms import FIRST, SECOND, Arm, Cell
from lethe.reporting.comparison.layouts import HYPERVOLUME, Column
from lethe.reporting.comparison.table import mean, spread
from lethe.reporting.scales import count, fixed

Verdict = Literal["better", "worse", "within the spread", "equal", "without a spread", "without a number"]


@dataclass(frozen=True)
class Pair:
    """Two arms that differ in one thing, which is `subject`."""

    subject: str
    base: Arm
    other: Arm


@dataclass(frozen=True)
class Judgement:
    """A pair by one column, in its unit. `difference` is the other's mean less the base's; its `spread` is the root
    of the sum of both squared, None where an arm has fewer than two numbers."""

    pair: Pair
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
    def verdict(self) -> Verdict:
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


def pairs(arms: Sequence[Arm]) -> list[Pair]:
    """FO-X with SO-X, and X+Y with X."""
    named = {arm.name: arm for arm in arms}
    orders = [
        Pair("second order", arm, named[twin])
        for arm in arms
        if arm.name.startswith(FIRST) and (twin := SECOND + arm.name.removeprefix(FIRST)) in named
    ]
    parts = [(arm, *arm.name.rpartition("+")) for arm in arms]
    return orders + [Pair(added, named[base], arm) for arm, base, _, added in parts if base in named]


def judgements(arms: Sequence[Arm], columns: Iterable[Column]) -> list[Judgement]:
    """Every pair by every column."""
    return [Judgement(p, c, p.base.shown(c), p.other.shown(c)) for c in columns for p in pairs(arms)]


def said(arms: Sequence[Arm], found: Iterable[Judgement]) -> list[str]:
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
    span = "" if one.spread is None else f" ± {fixed(one.spread, one.column.decimals)}"
    moved = f"the difference is {sign}{fixed(one.difference, one.column.decimals)}{span}"
    if one.verdict == "without a spread":
        return f"{moved}, with no spread to judge it by"
    if one.verdict == "within the spread":
        return f"{moved}, within the spread"
    return f"{moved}, so {one.pair.subject} is {one.verdict} by more than the spread"


def _budget(pair: Pair) -> str:
    base, other = (sum(len(each.trials) for each in arm.seeds) for arm in (pair.base, pair.other))
    if base != other:
        return f"at unequal budget ({other} against {base} trials)"
    return f"at equal budget ({count(base, 'trial')} each)"


def _seeds(one: Judgement) -> str:
    other, base = len(one.other.known), len(one.base.known)
    return f"{other} and {base} seeds" if other != base else count(base, "seed")


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
        f"{', '.join(f'{verdict} in {n}' for verdict, n in tally.items())} of {count(tally.total(), 'pair')}."
        for (subject, head), tally in counts.items()
    ]
