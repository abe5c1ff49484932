"""Pairs of arms that differ in one thing: which is better and by how much, in no more words than the numbers allow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lethe.reporting.comparison.arms import FIRST_ORDER, HYPERVOLUME, SECOND_ORDER, Arm, Cell, Column, arms_by_volume
from lethe.reporting.comparison.tables import format_mean, format_spread
from lethe.reporting.scales import format_count, format_fixed

PairVerdict = Literal["better", "worse", "within the spread", "equal", "without a spread", "without a number"]


@dataclass(frozen=True)
class ArmPair:
    """Two arms that differ in one thing, which is `subject`."""

    subject: str
    base: Arm
    other: Arm


@dataclass(frozen=True)
class Judgement:
    """A pair of arms by one column, in its unit."""

    pair: ArmPair
    column: Column
    base: Cell
    other: Cell

    @property
    def difference(self) -> float:
        """The other arm's mean less the base's; NaN where an arm has no number."""
        return self.other.mean - self.base.mean

    @property
    def spread(self) -> float | None:
        """Root of the sum of both squared spreads; None where an arm has fewer than two numbers."""
        if self.base.spread is None or self.other.spread is None:
            return None
        return math.hypot(self.base.spread, self.other.spread)

    @property
    def verdict(self) -> PairVerdict:
        """`better` or `worse` only where the difference is larger than its spread."""
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
    """Return the pairs of FO-X with SO-X, then those of X with X+Y."""
    by_name = {arm.name: arm for arm in arms}
    orders = [
        ArmPair("second order", arm, by_name[twin])
        for arm in arms
        if arm.name.startswith(FIRST_ORDER) and (twin := SECOND_ORDER + arm.name.removeprefix(FIRST_ORDER)) in by_name
    ]
    parts = [(arm, *arm.name.rpartition("+")) for arm in arms]
    return orders + [ArmPair(added, by_name[base], arm) for arm, base, _, added in parts if base in by_name]


def judgements(arms: Sequence[Arm], columns: Iterable[Column]) -> list[Judgement]:
    """Judge every pair of the arms by every column, column by column."""
    return [
        Judgement(pair, column, pair.base.column_cell(column), pair.other.column_cell(column))
        for column in columns
        for pair in arm_pairs(arms)
    ]


def describe_findings(arms: Sequence[Arm], judged: Iterable[Judgement]) -> list[str]:
    """Return short sentences: the largest hypervolumes, arms nowhere above the floors, counts of verdicts of pairs."""
    return [*_describe_hypervolumes(arms), *_describe_counts(judged)]


def describe_judgement(judgement: Judgement) -> str:
    """Return a sentence with both means, the budget and the verdict of a pair by one column."""
    base, other, column = judgement.pair.base, judgement.pair.other, judgement.column
    means = " against ".join(_format_cell(cell, column) for cell in (judgement.other, judgement.base))
    evidence = f"mean {column.head} {means} over {_count_seeds(judgement)} {_describe_budget(judgement.pair)}"
    return f"{other.name} against {base.name}: {evidence}; {_describe_difference(judgement)}."


def _describe_difference(judgement: Judgement) -> str:
    verdict, spread, decimals = judgement.verdict, judgement.spread, judgement.column.decimals
    if verdict == "without a number":
        return "an arm has no number, so they cannot be compared"
    if verdict == "equal":
        return "the means are equal"
    sign = "+" if judgement.difference > 0 else ""
    span = "" if spread is None else f" ± {format_fixed(spread, decimals)}"
    difference = f"the difference is {sign}{format_fixed(judgement.difference, decimals)}{span}"
    if verdict == "without a spread":
        return f"{difference}, with no spread to judge it by"
    if verdict == "within the spread":
        return f"{difference}, within the spread"
    return f"{difference}, so {judgement.pair.subject} is {verdict} by more than the spread"


def _describe_budget(pair: ArmPair) -> str:
    base, other = (sum(len(seed.trials) for seed in arm.seeds) for arm in (pair.base, pair.other))
    if base != other:
        return f"at unequal budget ({other} against {base} trials)"
    return f"at equal budget ({format_count(base, 'trial')} each)"


def _count_seeds(judgement: Judgement) -> str:
    other, base = len(judgement.other.known), len(judgement.base.known)
    return f"{other} and {base} seeds" if other != base else format_count(base, "seed")


def _format_cell(cell: Cell, column: Column) -> str:
    return f"{format_mean(cell, column)} {format_spread(cell, column)}".strip()


def _describe_hypervolumes(arms: Sequence[Arm]) -> list[str]:
    volumes = {arm.name: arm.cell(HYPERVOLUME) for arm in arms}
    begun = [arm for arm in arms if volumes[arm.name].known]
    competing = [arm for arm in begun if not arm.reference]
    by_volume = arms_by_volume(arms)
    below = [arm.name for arm in competing if not any(trial.feasible for trial in arm.complete)]
    lead = f" {describe_lead(by_volume[0], by_volume[1])}" if len(by_volume) > 1 else ""
    lists = {
        "Largest mean hypervolumes": [describe_volume(arm) for arm in by_volume[:3]],
        "No trial of any seed is above the floors": below,
        "References": [describe_volume(arm) for arm in begun if arm.reference],
    }
    sentences = {what: f"{what}: {', '.join(found)}." for what, found in lists.items() if found}
    return [sentence + lead if what.startswith("Largest") else sentence for what, sentence in sentences.items()]


def lead_of(first: Arm, second: Arm) -> Judgement:
    """Judge an arm against the next one by hypervolume."""
    column = Column(HYPERVOLUME, HYPERVOLUME, better="maximize")
    return Judgement(ArmPair(first.name, second, first), column, second.cell(HYPERVOLUME), first.cell(HYPERVOLUME))


def describe_lead(first: Arm, second: Arm) -> str:
    """Return whether the first arm's lead over the second is larger than its spread."""
    verdict = lead_of(first, second).verdict
    words = {"better": "is larger than its spread", "without a spread": "has no spread to judge it by"}
    return f"The lead of {first.name} over {second.name} {words.get(verdict, 'lies within its spread')}."


def describe_volume(arm: Arm) -> str:
    """Return the arm's name with mean and spread of its hypervolumes."""
    return f"{arm.name} {_format_cell(arm.cell(HYPERVOLUME), Column(HYPERVOLUME, HYPERVOLUME))}"


def _describe_counts(judged: Iterable[Judgement]) -> list[str]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for judgement in judged:
        key = (judgement.pair.subject, judgement.column.head)
        counts.setdefault(key, Counter())[judgement.verdict] += 1
    return [
        f"{subject[0].upper()}{subject[1:]} by mean {head}, against the spread over seeds: "
        f"{', '.join(f'{verdict} in {n}' for verdict, n in by_verdict.items())}"
        f" of {format_count(by_verdict.total(), 'pair')}."
        for (subject, head), by_verdict in counts.items()
    ]
