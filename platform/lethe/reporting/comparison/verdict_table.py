"""The verdicts of a comparison as tables: rows for the page, and verdicts.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from lethe.records import StudyRecord
from lethe.reporting.comparison.boundaries import BoundaryHit
from lethe.reporting.comparison.claims import Claim, Finding, claims
from lethe.reporting.comparison.findings import describe_answer, describe_extent, outcome_word
from lethe.reporting.comparison.interval_figure import IntervalFigure, interval_figure
from lethe.reporting.comparison.scores import TRIALS, Budget, Score
from lethe.reporting.scales import format_count


@dataclass(frozen=True)
class Answer:
    """What became of a claim by one score and budget: the word, and the verdicts behind it."""

    word: str
    detail: str


@dataclass(frozen=True)
class ClaimView:
    """A claim as the page shows it. `answers`: by score a cell of each budget; `notes`: what else belongs to it."""

    claim: Claim
    extent: str
    budgets: list[Budget]
    answers: list[tuple[Score, list[Answer]]]
    findings: list[Finding]
    notes: list[str]
    figure: IntervalFigure


def claim_views(record: StudyRecord, hits: Sequence[BoundaryHit]) -> list[ClaimView]:
    """Return the view of each claim; `hits`: settings of chosen trials at an end of their range."""
    return [_view(claim, hits) for claim in claims(record)]


def _view(claim: Claim, hits: Sequence[BoundaryHit]) -> ClaimView:
    budgets = claim.budgets
    answers = [
        (score, [Answer(outcome_word(claim, score, b), describe_answer(claim, score, b)) for b in budgets])
        for score in claim.scores
    ]
    names = {arm.name for pair in claim.pairs for arm in (pair.base, pair.other)}
    notes = [f"{budget.label[0].upper()}{budget.label[1:]}: {budget.note}." for budget in budgets if budget.note]
    if claim.left_out:
        seeds = "; ".join(f"seed {seed} of {pair.name}" for pair, seed in claim.left_out)
        notes.append(f"Left out, since the arms have unequal numbers of trials: {seeds}.")
    notes += [note for score in claim.scores if (note := _describe_nothing(claim, score))]
    if ends := [_describe_hit(hit) for hit in hits if hit.arm in names]:
        notes.append(f"At an end of its range, which then decided: {'; '.join(ends)}.")
    findings = [*claim.findings, *claim.pooled]
    return ClaimView(claim, describe_extent(claim), budgets, answers, findings, notes, interval_figure(claim))


def _describe_hit(hit: BoundaryHit) -> str:
    setting = hit.key.rpartition(".")[2].replace("_", " ")
    return f"{hit.arm} {setting} ({hit.end}, {format_count(len(hit.at), 'seed')})"


def _describe_nothing(claim: Claim, score: Score) -> str:
    """Return the pairs that this score gives no verdict, since neither arm found anything; empty without one."""
    pairs = [f.pair.name for f in claim.by(score, TRIALS) if f.pair and f.nothing_found]
    return (
        f"{score.name.capitalize()}: neither arm has found anything, so no verdict: {', '.join(pairs)}."
        if pairs
        else ""
    )


def verdicts_csv(record: StudyRecord) -> str:
    """Return verdicts.csv: a line per claim, pair, score and budget. Pooled lines have no arms; a field is empty where
    there is no number. `without_a_seed`: the verdicts that leaving out a seed would give, where they are others."""
    found = claims(record)
    seeds = sorted({seed for claim in found for finding in claim.findings for seed in finding.differences.seeds})
    file = StringIO()
    lines = csv.writer(file, lineterminator="\n")
    fields = ["claim", "base", "other", "score", "better", "budget", "budget_note", "base_trials", "other_trials"]
    numbers = ["seeds", "base_mean", "other_mean", "difference", "low", "high", "p", "p_holm"]
    ends = ["verdict", "claim_outcome", "won", "without_a_seed"]
    lines.writerow([*fields, *numbers, *ends, *(f"difference_seed_{seed}" for seed in seeds)])
    for claim in found:
        for finding in (*claim.findings, *claim.pooled):
            lines.writerow(_line(claim, finding, seeds))
    return file.getvalue()


def _line(claim: Claim, finding: Finding, seeds: Sequence[int]) -> list[object]:
    pair, score, budget, differences = finding.pair, finding.score, finding.budget, finding.differences
    count = len(differences.seeds)
    by_seed = dict(zip(differences.seeds, differences.values, strict=True))
    evidence = finding.evidence
    return [
        *(claim.subject, pair and pair.base.name, pair and pair.other.name),
        *(score.name, score.better, budget.name, budget.note, *finding.trials, count),
        *(sum(values) / count if count else None for values in (differences.base, differences.other)),
        differences.mean if count else None,
        *((evidence.low, evidence.high, evidence.p, evidence.corrected) if evidence else (None,) * 4),
        *(finding.verdict, claim.outcome(score, budget), finding.wins),
        "; ".join(f"{seed}: {verdict}" for seed, verdict in finding.changes),
        *(by_seed.get(seed) for seed in seeds),
    ]
