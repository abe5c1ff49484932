"""Findings of a comparison, in plain words and no more than the numbers say.

Which arm of a pair is better and by how much (`Judgement`); the same draw by draw (`PairedTrials`): arms with one seed
draw alike as long as their sampler is random and their spaces are the same, and comparing trials that share a draw
shows what the spread over chosen trials hides; and settings so near to an end of their range that better ones may lie
beyond it (`BoundaryHit`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeGuard, get_args

from pydantic import TypeAdapter
from scipy.stats import binomtest

from lethe.config.space import Choice, Parameter, Scalar
from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import FIRST_ORDER, HYPERVOLUME, SECOND_ORDER, Arm, Cell, Column, arm_parts
from lethe.reporting.comparison.tables import format_mean, format_spread
from lethe.reporting.scales import format_count, format_fixed, format_setting
from lethe.reporting.trial_views import metric_value

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
    by_volume = sorted((arm for arm in competing if volumes[arm.name].mean > 0), key=lambda a: -volumes[a.name].mean)
    below = [arm.name for arm in competing if not any(trial.feasible for trial in arm.complete)]
    lists = {
        "Largest mean hypervolumes": [describe_volume(arm) for arm in by_volume[:3]],
        "No trial of any seed is above the floors": below,
        "References": [describe_volume(arm) for arm in begun if arm.reference],
    }
    return [f"{what}: {', '.join(found)}." for what, found in lists.items() if found]


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


FEWEST_DRAWS = 6  # equal draws; with fewer no sign test comes below .05


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
        """P of the two-sided sign test of the draws that differ; 1 where none does."""
        differing = self.better + self.worse
        return float(binomtest(self.better, differing).pvalue) if differing else 1.0

    @property
    def direction(self) -> PairVerdict:
        """Where most draws that differ point."""
        return "better" if self.better > self.worse else "worse" if self.worse > self.better else "equal"

    def __str__(self) -> str:
        count = self.better + self.worse + self.same
        counts = f"{self.objective} better in {self.better}, worse in {self.worse} of {count} equal draws"
        return f"{self.pair.other.name} against {self.pair.base.name}: {counts} (sign test p {self.p:.2g})."


ALPHA = 0.05


def describe_difference_of_pairs(found: Sequence[PairedTrials] | Sequence[Judgement]) -> str:
    """Return for every subject in how many pairs it is better or worse, and by what: `second order is better in 1 of 4
    pairs by hypervolume`. Paired tests count after Holm's correction; empty without a pair."""
    shown = [one for one in found if isinstance(one, PairedTrials)]
    significant = _significant(shown)
    counts: dict[str, Counter[tuple[str, str]]] = {}
    pairs: dict[str, set[str]] = {}
    for one in found:
        by = one.objective if isinstance(one, PairedTrials) else one.column.head
        verdict = one.verdict if isinstance(one, Judgement) else one.direction if one in significant else "equal"
        counts.setdefault(one.pair.subject, Counter())[verdict, by] += 1
        pairs.setdefault(one.pair.subject, set()).add(one.pair.other.name)

    def clause(subject: str) -> str:
        total = len(pairs[subject])
        differing = [(word, by, n) for (word, by), n in counts[subject].items() if word in ("better", "worse")]
        parts = [f"{word} by {by}{f' in {n} of {total} pairs' if total > 1 else ''}" for word, by, n in differing]
        return f"{subject} is {' and '.join(parts) or 'neither better nor worse'}"

    return "; ".join(map(clause, counts))


def describe_paired_tests(counted: Sequence[PairedTrials], pairs: int) -> list[str]:
    """Return for every objective and subject, in how many of the pairs a sign test over equal draws says better or
    worse, at `ALPHA` after Holm's correction for all the tests. `pairs`: how many pairs of arms there are."""
    if not counted:
        few = f"No pair has {FEWEST_DRAWS} trials with equal settings, so no paired test can tell a difference."
        return [few] if pairs else []
    shown = _significant(counted)
    groups: dict[tuple[str, str], list[PairedTrials]] = {}
    for test in counted:
        groups.setdefault((test.pair.subject, test.objective), []).append(test)
    return [_describe_tests(subject, objective, tests, shown) for (subject, objective), tests in groups.items()]


def _significant(counted: Sequence[PairedTrials]) -> list[PairedTrials]:
    """Return the tests below `ALPHA` after Holm's correction."""
    by_p = sorted(counted, key=lambda test: test.p)
    first_that_fails = next((n for n, test in enumerate(by_p) if test.p * (len(by_p) - n) >= ALPHA), len(by_p))
    return by_p[:first_that_fails]


def _describe_tests(subject: str, objective: str, tests: Sequence[PairedTrials], shown: Sequence[PairedTrials]) -> str:
    better = [test for test in tests if test in shown and test.better > test.worse]
    worse = [test for test in tests if test in shown and test.better < test.worse]
    names = [
        f"{test.pair.other.name} {word} in {max(test.better, test.worse)} of {test.better + test.worse + test.same}"
        f" equal draws, p {test.p:.2g}"
        for word, found in (("better", better), ("worse", worse))
        for test in found
    ]
    pairs = format_count(len(tests), "pair")
    counts = f"better in {len(better)} and worse in {len(worse)} of {pairs} by {objective}"
    draws = sorted(test.better + test.worse + test.same for test in tests)
    n = str(draws[0]) if draws[0] == draws[-1] else f"{draws[0]} to {draws[-1]}"
    listed = f": {'; '.join(names)}" if names else ""
    return (
        f"{subject[0].upper()}{subject[1:]} {counts}, by a sign test over {n} equal draws a pair"
        f" (p < {ALPHA} after Holm's correction){listed}."
    )


def paired_trials(record: StudyRecord, arms: Sequence[Arm]) -> list[PairedTrials]:
    """Count equal draws by every objective, for every pair of the arms with at least `FEWEST_DRAWS` of them."""
    counted = []
    for pair in arm_pairs(arms):
        equal_draws = list(_equal_draws(record, pair))
        if len(equal_draws) >= FEWEST_DRAWS:
            counted += [_count_draws(pair, goal, equal_draws) for goal in record.objectives]
    return counted


def _equal_draws(record: StudyRecord, pair: ArmPair) -> Iterator[tuple[TrialRecord, TrialRecord]]:
    """Yield the complete trials (base, other) of one seed that drew the same settings."""
    base_space, other_space = (arm_space(record, arm.name) for arm in (pair.base, pair.other))
    for base, other in zip(pair.base.seeds, pair.other.seeds, strict=True):
        by_draw = {_draw(base_space, trial): trial for trial in base.trials if trial.verdict == "complete"}
        for trial in other.trials:
            twin = by_draw.get(_draw(other_space, trial))
            if twin is not None and trial.verdict == "complete":
                yield twin, trial


def _draw(space: Iterable[str], trial: TrialRecord) -> tuple[tuple[str, object], ...]:
    return tuple((key, trial.params[key]) for key in space if key in trial.params)


def _count_draws(
    pair: ArmPair, goal: ObjectiveRecord, equal_draws: Sequence[tuple[TrialRecord, TrialRecord]]
) -> PairedTrials:
    sign = 1 if goal.direction == "maximize" else -1
    gains = [
        sign * (metric_value(other.metrics, goal.metric) - metric_value(base.metrics, goal.metric))
        for base, other in equal_draws
    ]
    known = [gain for gain in gains if not math.isnan(gain)]
    better, worse = sum(gain > 0 for gain in known), sum(gain < 0 for gain in known)
    return PairedTrials(pair, goal.metric, better, worse, len(known) - better - worse)


BOUNDARY = 0.05  # share of a range that counts as its end, on the scale that the search samples
End = Literal["low", "high"]


@dataclass(frozen=True)
class BoundaryHit:
    """A setting of an arm's chosen trials at one end of its range; `at`: (seed, trial, value) of each."""

    arm: str
    key: str
    end: End
    searched: str
    at: tuple[tuple[int, int, Scalar], ...]

    def __str__(self) -> str:
        seeds = ", ".join(str(seed) for seed, _, _ in self.at)
        noun = "seed" if len(self.at) == 1 else "seeds"
        return f"{self.arm} {self.key} at the {self.end} end of {self.searched} ({noun} {seeds})"


def boundary_hits(record: StudyRecord, arms: Iterable[Arm]) -> list[BoundaryHit]:
    """Return the settings at an end of their range, in the order of the arms and of the study's space."""
    return [
        BoundaryHit(arm.name, key, end, _describe_range(parameter), at)
        for arm in arms
        for key, parameter in arm_space(record, arm.name).items()
        for end in get_args(End)
        if (at := _chosen_at(arm, key, parameter, end))
    ]


def _chosen_at(arm: Arm, key: str, parameter: Parameter, end: End) -> tuple[tuple[int, int, Scalar], ...]:
    settings = ((seed.seed, seed.chosen.number, seed.chosen.params.get(key)) for seed in arm.seeds if seed.chosen)
    return tuple((seed, number, value) for seed, number, value in settings if boundary_end(value, parameter) == end)


def arm_space(record: StudyRecord, arm: str) -> dict[str, Parameter]:
    """Return the study's space with the arm's laid over it; an arm's trials have those parameters that they read."""
    space: Mapping[str, Any] = arm_parts(record, arm)["space"]
    return {key: _parameter_adapter().validate_python(parameter) for key, parameter in space.items()}


@cache
def _parameter_adapter() -> TypeAdapter[Parameter]:
    return TypeAdapter(Parameter)


def boundary_end(value: Scalar, parameter: Parameter) -> End | None:
    """Return the end that `value` is at: within `BOUNDARY` of a range, or the least or greatest of three or more
    numbers. None for any other value: two choices have no inside, words no order, a range of one value no ends."""
    if not _is_number(value):
        return None
    if isinstance(parameter, Choice):
        numbers = [choice for choice in parameter.choices if _is_number(choice)]
        if len(parameter.choices) < 3 or len(numbers) < len(parameter.choices):
            return None
        return "low" if value == min(numbers) else "high" if value == max(numbers) else None
    low, high, at = float(parameter.low), float(parameter.high), float(value)
    if low == high:
        return None
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    share = (at - low) / (high - low)
    return "low" if share <= BOUNDARY else "high" if share >= 1 - BOUNDARY else None


def _describe_range(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(map(format_setting, parameter.choices))
    return f"{format_setting(parameter.low)} to {format_setting(parameter.high)}{', log' if parameter.log else ''}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
