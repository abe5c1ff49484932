"""Claims of a comparison: for each thing in which arms differ, the verdict by docs/METHODS.md section 6a."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm, arms
from lethe.reporting.comparison.pairs import ArmPair, arm_pairs
from lethe.reporting.comparison.scores import ArmScores, Budget, Score, Scoring, equal_budgets
from lethe.reporting.comparison.statistics import (
    FEWEST_SEEDS,
    REPLICATES,
    Evidence,
    Verdict,
    bootstrap_interval,
    holm,
    paired_t,
)
from lethe.search.pareto import Floats

Outcome = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Differences:
    """One score of a pair (other less base) with one budget: `base` and `other` by seed, and `pools` [seeds, entries]
    of differences with trials drawn anew."""

    seeds: tuple[int, ...]
    base: tuple[float, ...]
    other: tuple[float, ...]
    pools: Floats

    @property
    def values(self) -> tuple[float, ...]:
        """The difference of each seed."""
        return tuple(other - base for base, other in zip(self.base, self.other, strict=True))

    @property
    def mean(self) -> float:
        """The mean difference; NaN without a seed."""
        return float(np.mean(self.values)) if self.seeds else float("nan")

    def only(self, seeds: Sequence[int]) -> Differences:
        """Return the same of some of the seeds."""
        kept = [place for place, seed in enumerate(self.seeds) if seed in seeds]
        base, other = (tuple(values[place] for place in kept) for values in (self.base, self.other))
        return Differences(tuple(self.seeds[place] for place in kept), base, other, self.pools[kept])


@dataclass(frozen=True)
class Finding:
    """The answer for a pair, or for the mean over a claim's pairs (`pair` is None), by one score with one budget.

    `evidence` and `verdict` are None with fewer than `FEWEST_SEEDS` seeds. `nothing_found`: neither arm has a value in
    any seed, so that there is no verdict either. `trials`: how many of each arm are counted, over all seeds; `changes`:
    the verdict without a seed, where it is another.
    """

    pair: ArmPair | None
    score: Score
    budget: Budget
    differences: Differences
    trials: tuple[int, int] = (0, 0)
    nothing_found: bool = False
    evidence: Evidence | None = None
    verdict: Verdict | None = None
    changes: tuple[tuple[int, Verdict], ...] = ()

    @property
    def wins(self) -> int:
        """In how many seeds the other arm is better."""
        return sum(self.score.sign * value > 0 for value in self.differences.values)


@dataclass(frozen=True)
class Claim:
    """What was found about `subject`: `findings` by score, budget and pair, and `pooled` over its pairs by score and
    budget, empty of a single pair. `left_out`: seeds of a pair in which its arms have unequal numbers of trials."""

    subject: str
    pairs: tuple[ArmPair, ...]
    findings: tuple[Finding, ...]
    pooled: tuple[Finding, ...]
    left_out: tuple[tuple[ArmPair, int], ...]

    @property
    def answers(self) -> list[tuple[Score, Budget]]:
        """The scores and budgets that there are answers for."""
        return list(dict.fromkeys((finding.score, finding.budget) for finding in self.findings))

    @property
    def scores(self) -> list[Score]:
        """The scores that there are answers by."""
        return list(dict.fromkeys(score for score, _ in self.answers))

    @property
    def budgets(self) -> list[Budget]:
        """The budgets that there are answers with."""
        return list(dict.fromkeys(budget for _, budget in self.answers))

    def by(self, score: Score, budget: Budget) -> list[Finding]:
        """Return the findings of every pair."""
        return [finding for finding in self.findings if (finding.score, finding.budget) == (score, budget)]

    def pooled_by(self, score: Score, budget: Budget) -> Finding:
        """Return the finding for the mean over pairs, which is that of a single pair."""
        of_all = self.pooled or self.findings
        return next(finding for finding in of_all if (finding.score, finding.budget) == (score, budget))

    def outcome(self, score: Score, budget: Budget) -> Outcome | None:
        """Return whether the claim holds: better in each pair; it fails where it is worse or equal in one, and is
        undecided else. None where no pair has a verdict."""
        verdicts = [finding.verdict for finding in self.by(score, budget)]
        if not any(verdicts):
            return None
        if any(verdict in ("worse", "equal") for verdict in verdicts):
            return "fails"
        return "holds" if all(verdict == "better" for verdict in verdicts) else "undecided"


_last: tuple[StudyRecord, list[Claim]] | None = None


def claims(record: StudyRecord) -> list[Claim]:
    """Return the claims of a comparison, in the order of its pairs. Those of the last record are kept: a report asks
    for them in its page, its table and its figures."""
    global _last
    if _last is None or _last[0] is not record:
        _last = record, _Claims(record).all()
    return _last[1]


class _Claims:
    def __init__(self, record: StudyRecord) -> None:
        self._pairs = arm_pairs(record, arms(record))
        compared = {arm.name: arm for pair in self._pairs for arm in (pair.base, pair.other)}
        self._scoring = Scoring(record, [trial for arm in compared.values() for s in arm.seeds for trial in s.trials])
        self._scores: dict[tuple[str, int], ArmScores] = {}
        self._pools: dict[tuple[str, int, int], dict[str, Floats]] = {}

    def all(self) -> list[Claim]:
        by_subject: dict[str, list[ArmPair]] = {}
        for pair in self._pairs:
            by_subject.setdefault(pair.subject, []).append(pair)
        return [self._claim(subject, pairs) for subject, pairs in by_subject.items()]

    def _claim(self, subject: str, pairs: list[ArmPair]) -> Claim:
        findings: list[Finding] = []
        pooled: list[Finding] = []
        for score, budget in product(self._scoring.scores, self._scoring.budgets):
            found = _judged([self._finding(pair, score, budget) for pair in pairs])
            findings += found
            if len(pairs) > 1:
                pooled += _judged([_pooled(found)])
        left_out = [(pair, seed) for pair in pairs for seed in _unequal_seeds(pair)]
        return Claim(subject, tuple(pairs), tuple(findings), tuple(pooled), tuple(left_out))

    def _finding(self, pair: ArmPair, score: Score, budget: Budget) -> Finding:
        base: list[float] = []
        other: list[float] = []
        pools, trials = [], np.zeros(2, dtype=int)
        seeds = _seeds(pair)
        for seed in seeds:
            scores = [self._scores_of(arm, seed) for arm in (pair.base, pair.other)]
            counts = equal_budgets(budget.name, *scores)
            trials += counts
            for values, one, count in zip((base, other), scores, counts, strict=True):
                values.append(one.first(count)[score.name])
            drawn = [
                self._pool(arm, seed, count)[score.name]
                for arm, count in zip((pair.base, pair.other), counts, strict=True)
            ]
            pools.append(drawn[1] - drawn[0])
        table = np.array(pools).reshape(len(seeds), REPLICATES)
        differences = Differences(tuple(seeds), tuple(base), tuple(other), table)
        found = any(value != self._scoring.nothing(score) for value in (*base, *other))
        return Finding(pair, score, budget, differences, (int(trials[0]), int(trials[1])), bool(seeds) and not found)

    def _scores_of(self, arm: Arm, seed: int) -> ArmScores:
        key = arm.name, seed
        if key not in self._scores:
            trials = next(one.trials for one in arm.seeds if one.seed == seed)
            self._scores[key] = self._scoring.scores_of(trials)
        return self._scores[key]

    def _pool(self, arm: Arm, seed: int, count: int) -> dict[str, Floats]:
        """Return the scores of the arm's first `count` trials, drawn anew `REPLICATES` times: the same draws for every
        pair in which it is, so that pairs can be averaged."""
        key = arm.name, seed, count
        if key not in self._pools:
            rng = np.random.default_rng([*arm.name.encode(), seed, count])
            self._pools[key] = self._scores_of(arm, seed).resampled(count, REPLICATES, rng)
        return self._pools[key]


def _seeds(pair: ArmPair) -> list[int]:
    """Return the seeds with which both arms have trials, and as many of them."""
    return [
        base.seed
        for base, other in zip(pair.base.seeds, pair.other.seeds, strict=True)
        if len(base.trials) == len(other.trials) > 0
    ]


def _unequal_seeds(pair: ArmPair) -> list[int]:
    """Return the seeds that were begun with an arm of the pair and do not count."""
    begun = [
        base.seed for base, other in zip(pair.base.seeds, pair.other.seeds, strict=True) if base.trials or other.trials
    ]
    return [seed for seed in begun if seed not in _seeds(pair)]


def _judged(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of a claim by one score and budget with their verdicts, which are corrected for each other,
    and with what they would be without a seed."""
    judged = [
        replace(finding, evidence=evidence, verdict=_verdict(finding, finding.differences, evidence))
        for finding, evidence in zip(findings, _evidence([f.differences for f in findings]), strict=True)
    ]
    changes: list[list[tuple[int, Verdict]]] = [[] for _ in judged]
    for seed in sorted({seed for finding in findings for seed in finding.differences.seeds}):
        rest = [f.differences.only([s for s in f.differences.seeds if s != seed]) for f in findings]
        for place, (differences, evidence) in enumerate(zip(rest, _evidence(rest), strict=True)):
            verdict = _verdict(judged[place], differences, evidence)
            if verdict and not judged[place].nothing_found and verdict != judged[place].verdict:
                changes[place].append((seed, verdict))
    return [replace(finding, changes=tuple(found)) for finding, found in zip(judged, changes, strict=True)]


def _verdict(finding: Finding, differences: Differences, evidence: Evidence | None) -> Verdict | None:
    if evidence is None or finding.nothing_found:
        return None
    return evidence.verdict(finding.score.sign * differences.mean)


def _evidence(tested: Sequence[Differences]) -> list[Evidence | None]:
    """Return the evidence about each pair, corrected for those that have enough seeds; None about the others."""
    enough = [place for place, one in enumerate(tested) if len(one.seeds) >= FEWEST_SEEDS]
    ps = [paired_t(tested[place].values) for place in enough]
    found: list[Evidence | None] = [None] * len(tested)
    for place, p, corrected in zip(enough, ps, holm(ps), strict=True):
        found[place] = Evidence(*bootstrap_interval(tested[place].pools), p, corrected)
    return found


def _pooled(findings: Sequence[Finding]) -> Finding:
    """Return the means over pairs, of the seeds that all of them have."""
    shared = [s for s in findings[0].differences.seeds if all(s in f.differences.seeds for f in findings)]
    parts = [finding.differences.only(shared) for finding in findings]
    base, other = (
        tuple(np.mean([getattr(part, name) for part in parts], axis=0).tolist()) for name in ("base", "other")
    )
    pools = np.mean([part.pools for part in parts], axis=0)
    first, second = (sum(finding.trials[place] for finding in findings) for place in (0, 1))
    differences = Differences(tuple(shared), base, other, pools)
    nothing = all(finding.nothing_found for finding in findings)
    return Finding(None, findings[0].score, findings[0].budget, differences, (first, second), nothing)
