"""What a report says about the time after the search: fresh seeds and audits, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean

from lethe.config.audits import FULL, LEAKS, VARIANTS
from lethe.records import AuditRecord, StudyRecord, TrialRecord
from lethe.reporting.scales import format_count, format_number
from lethe.reporting.trial_views import value, winners


@dataclass(frozen=True)
class Optimism:
    """How much better than its fresh runs' mean a member looked, on average over members, in an objective's own unit:
    above 0 is too good. `share` of the members looked too good."""

    metric: str
    too_good: float
    share: float


@dataclass(frozen=True)
class AuditedModel:
    """A row of the table of audits: `trial` is None for start model and oracle."""

    name: str
    trial: TrialRecord | None
    audits: tuple[AuditRecord, ...]

    def of(self, variant: str) -> AuditRecord | None:
        """What a variant found."""
        return next((audit for audit in self.audits if audit.variant == variant), None)


@dataclass(frozen=True)
class AuditTable:
    """One metric, by model and variant."""

    metric: str
    variants: dict[str, str]
    models: list[AuditedModel]


def confirmed_members(record: StudyRecord) -> list[TrialRecord]:
    """Front members that were run again, as the report orders them."""
    return [trial for trial in winners(record) if trial.confirmation]


def optimism(record: StudyRecord) -> list[Optimism]:
    """For each objective, over the members that have means."""
    members = [(t.metrics, t.confirmation.mean) for t in record.front if t.confirmation and t.confirmation.mean]
    found = []
    for goal in record.objectives if members else ():
        sign = 1 if goal.direction == "maximize" else -1
        gaps = [sign * (value(own, goal.metric) - value(means, goal.metric)) for own, means in members]
        gaps = [gap for gap in gaps if math.isfinite(gap)]
        if gaps:
            found.append(Optimism(goal.metric, mean(gaps), mean(gap > 0 for gap in gaps)))
    return found


def describe_optimism(record: StudyRecord) -> str:
    """What fresh seeds say of the front, in two or three sentences; "" where there were none."""
    members = confirmed_members(record)
    if not members:
        return ""
    kept = sum(trial.confirmation is not None and trial.confirmation.confirmed for trial in members)
    seeds = max(len(trial.confirmation.runs) for trial in members if trial.confirmation)
    said = [
        f"{kept} of {format_count(len(members), 'front member')} stay on the front by the mean of {seeds} fresh seeds."
    ]
    if parts := [_seen(found) for found in optimism(record)]:
        chosen = f"How optimistic a front chosen from {format_count(len(record.trials), 'noisy trial')} is"
        said.append(f"{chosen}: on average the search saw {' and '.join(parts)} than the fresh runs are.")
    if record.confirmed_hypervolume is not None:
        seen, meant = format_number(record.hypervolume), format_number(record.confirmed_hypervolume)
        said.append(f"Hypervolume: {seen} as the search saw it, {meant} by the means.")
    return " ".join(said)


def _seen(found: Optimism) -> str:
    better = "better" if found.too_good > 0 else "worse"
    return (
        f"{found.metric} {format_number(abs(found.too_good))} {better} ({found.share:.0%} of the members looked better)"
    )


def audit_tables(record: StudyRecord) -> list[AuditTable]:
    """The metrics that audits measured, the plainest first; what was given away before what it cost."""
    models = list(_models(record))
    known = {audit.variant for model in models for audit in model.audits}
    variants = {name: meaning for name, meaning in VARIANTS.items() if name in known}
    metrics = dict.fromkeys(key for model in models for audit in model.audits for key in audit.after)
    return [
        AuditTable(metric, {v: text for v, text in variants.items() if _has(models, v, metric)}, models)
        for metric in sorted(metrics, key=_place)
    ]


def _models(record: StudyRecord) -> Iterable[AuditedModel]:
    for name, scores in (("start model", record.start), ("oracle", record.oracle)):
        if scores and scores.audits:
            yield AuditedModel(name, None, scores.audits)
    for trial in winners(record):
        if trial.audits:
            yield AuditedModel(f"trial {trial.number}", trial, trial.audits)


def _has(models: list[AuditedModel], variant: str, metric: str) -> bool:
    return any(audit.variant == variant and metric in audit.after for model in models for audit in model.audits)


def _place(metric: str) -> tuple[int, str]:
    order = ["forget_rouge", *(name for leaks in LEAKS.values() for name in leaks if name != "forget_rouge"), *FULL]
    return (order.index(metric) if metric in order else len(order)), metric
