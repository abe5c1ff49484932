"""What a comparison found, in sentences: the largest hypervolumes, and what became of each claim."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from lethe.reporting.comparison.arms import HYPERVOLUME, Arm, Column, arms_by_volume
from lethe.reporting.comparison.claims import Claim, Finding
from lethe.reporting.comparison.scores import BEST_UTILITY, EPOCHS, TRIALS, VOLUME, Budget, Score
from lethe.reporting.comparison.statistics import ALPHA, FEWEST_SEEDS
from lethe.reporting.comparison.tables import format_mean, format_spread
from lethe.reporting.opening import joined
from lethe.reporting.scales import format_count, format_fixed

NOTHING = {  # by score, where no arm of any pair has a value
    VOLUME.name: "without a verdict (no model is above the floors)",
    BEST_UTILITY.name: "without a verdict (no model passes)",
    EPOCHS.name: "without a verdict (no model meets the criterion)",
}
VOLUME_COLUMN = Column(HYPERVOLUME, HYPERVOLUME)
DECIMALS = 3


def describe_volumes(arms: Sequence[Arm]) -> list[str]:
    """Return short sentences: the largest hypervolumes, arms nowhere above the floors, references."""
    begun = [arm for arm in arms if arm.cell(HYPERVOLUME).known]
    competing = [arm for arm in begun if not arm.reference]
    lead = describe_lead(arms)
    lists = {
        f"Largest mean hypervolumes{f' ({lead})' if lead else ''}": map(_describe_volume, arms_by_volume(arms)[:3]),
        "No trial of any seed is above the floors": [
            arm.name for arm in competing if not any(trial.feasible for trial in arm.complete)
        ],
        "References": [_describe_volume(arm) for arm in begun if arm.reference],
    }
    return [f"{what}: {', '.join(names)}." for what, found in lists.items() if (names := list(found))]


def describe_lead(arms: Sequence[Arm]) -> str:
    """Return in how many seeds the arm with the largest hypervolume is ahead of the next one; empty without a next. It
    is no verdict: the arm was chosen for being ahead."""
    by_volume = arms_by_volume(arms)
    if len(by_volume) < 2:
        return ""
    first, second = by_volume[:2]
    pairs = zip(first.cell(HYPERVOLUME).values, second.cell(HYPERVOLUME).values, strict=True)
    known = [(a, b) for a, b in pairs if not (math.isnan(a) or math.isnan(b))]
    ahead = sum(a > b for a, b in known)
    return f"{first.name} is ahead of {second.name} with {ahead} of {format_count(len(known), 'seed')}"


def _describe_volume(arm: Arm) -> str:
    cell = arm.cell(HYPERVOLUME)
    return f"{arm.name} {format_mean(cell, VOLUME_COLUMN)} {format_spread(cell, VOLUME_COLUMN)}".strip()


def describe_claim(claim: Claim) -> str:
    """Return one line: whether the claim holds, by each score and with each budget; without a verdict what it needs."""
    of_what = describe_extent(claim)
    if lacking := _describe_lack(claim):
        return f"{claim.subject} ({of_what}): {lacking}"
    return f"{claim.subject} ({of_what}): {'; '.join(_describe_score(claim, score) for score in claim.scores)}"


def _describe_score(claim: Claim, score: Score) -> str:
    budgets: dict[str, list[str]] = {}
    for one, budget in claim.answers:
        if one == score:
            budgets.setdefault(outcome_word(claim, score, budget), []).append(budget.label)
    if len(budgets) == 1:
        return f"{score.name} {next(iter(budgets))} with every budget"
    return f"{score.name} {', '.join(f'{word} with {joined(labels)}' for word, labels in budgets.items())}"


def outcome_word(claim: Claim, score: Score, budget: Budget) -> str:
    """Return whether the claim holds, or of a single pair its verdict; where there is none, why."""
    single = len(claim.pairs) == 1
    word = claim.pooled_by(score, budget).verdict if single else claim.outcome(score, budget)
    if word:
        return word
    return NOTHING[score.name] if all(f.nothing_found for f in claim.by(score, budget)) else "no verdict"


def describe_claims_briefly(claims: Iterable[Claim]) -> str:
    """Return what became of the claims, for a headline: `with equal trials, second order: volume fails, utility holds`;
    empty without a verdict."""

    def brief(claim: Claim) -> str:
        words = (f"{score.name} {outcome_word(claim, score, TRIALS)}" for score in claim.scores)
        return f"{claim.subject}: {', '.join(words)}"

    decided = [brief(claim) for claim in claims if not _describe_lack(claim)]
    return f"with equal trials, {'; '.join(decided)}" if decided else ""


def describe_test(claims: Sequence[Claim]) -> str:
    """Return by which test arms are said to differ, or why none are."""
    if not claims:
        return "No two arms differ in one thing only, so none are tested as a pair."
    lacking = [_describe_lack(claim) for claim in claims]
    if all(lacking):
        return f"{lacking[0][0].upper()}{lacking[0][1:]}."
    seeds = sorted({len(finding.differences.seeds) for claim in claims for finding in claim.findings})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"By paired t tests over {count} seeds, p < {ALPHA} after Holm's correction; a claim about several pairs holds"
        " where each is better and fails where one is worse or equal."
    )


def describe_extent(claim: Claim) -> str:
    """Return how many pairs and seeds the claim stands on."""
    seeds = sorted({len(finding.differences.seeds) for finding in claim.findings})
    count = format_count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return f"{format_count(len(claim.pairs), 'pair')}, {count}"


def _describe_lack(claim: Claim) -> str:
    """Return what a verdict would need; empty where a pair has one."""
    if any(finding.verdict for finding in claim.findings):
        return ""
    most = max(len(finding.differences.seeds) for finding in claim.findings)
    if most >= FEWEST_SEEDS:
        return "no verdict: neither arm of a pair has found anything"
    whose = "" if not claim.left_out else " with equal numbers of trials"
    return f"no verdict: it needs {FEWEST_SEEDS} seeds{whose}, and there {'is' if most == 1 else 'are'} {most}"


def describe_answer(claim: Claim, score: Score, budget: Budget) -> str:
    """Return how many pairs have which verdict, and the mean over pairs: a cell of the claim's summary."""
    counts = Counter(finding.verdict or "no verdict" for finding in claim.by(score, budget))
    pairs = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items()) if len(claim.pairs) > 1 else ""
    pooled = claim.pooled_by(score, budget)
    mean = f"{'mean over pairs ' if pairs else ''}{describe_difference(pooled)}"
    verdict = f": {pooled.verdict}" if pairs and pooled.verdict else ""
    return f"{f'{pairs}; ' if pairs else ''}{mean}{verdict}"


def describe_difference(finding: Finding) -> str:
    """Return the mean difference with its interval and p: `+0.045 (0.010 to 0.080), p 0.02`."""
    mean = format_signed(finding.differences.mean)
    if finding.evidence is None:
        return mean
    low, high = (format_fixed(end, DECIMALS) for end in (finding.evidence.low, finding.evidence.high))
    return f"{mean} ({low} to {high}), p {format_p(finding.evidence.corrected)}"


def format_signed(difference: float) -> str:
    """Return a difference with its sign."""
    return ("+" if difference > 0 else "") + format_fixed(difference, DECIMALS)


def format_p(p: float) -> str:
    """Return p with two digits, `< 0.001` below that."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
