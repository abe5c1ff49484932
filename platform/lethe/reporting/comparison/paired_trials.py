"""Pairs of arms draw by draw. Arms with one seed draw alike as long as their sampler is random and their spaces are the
same; comparing trials that share a draw shows what the spread over chosen trials hides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import Arm
from lethe.reporting.comparison.boundaries import arm_space
from lethe.reporting.comparison.judgements import ArmPair, Judgement, PairVerdict, arm_pairs
from lethe.reporting.scales import format_count
from lethe.reporting.trial_views import metric_value

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
