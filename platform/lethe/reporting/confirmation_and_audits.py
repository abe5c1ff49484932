"""The part of a report about the time after the search: fresh seeds and audits, as sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean

from lethe.config.audits import FULL, variant_meanings
from lethe.config.benchmarks import BENCHMARKS
from lethe.records import AuditRecord, StudyRecord, TrialRecord
from lethe.reporting.scales import format_count, format_number
from lethe.reporting.trial_views import front_by_alias, metric_value


@dataclass(frozen=True)
class Optimism:
    """The mean gap between a front member's value and the mean of its fresh runs, over all members.

    `too_good` is in the objective's own unit, above 0 where the search was optimistic; `share` of the members looked
    better than their fresh runs are.
    """

    metric: str
    too_good: float
    share: float


def confirmed_members(record: StudyRecord) -> list[TrialRecord]:
    """Return the front members that were run again, as the report orders them."""
    return [trial for trial in front_by_alias(record) if trial.confirmation]


def optimism(record: StudyRecord) -> list[Optimism]:
    """Return the optimism of each objective that has finite gaps over the members with means."""
    members = [(t.metrics, t.confirmation.mean) for t in record.front if t.confirmation and t.confirmation.mean]
    entries = []
    for goal in record.objectives if members else ():
        sign = 1 if goal.direction == "maximize" else -1
        gaps = [sign * (metric_value(own, goal.metric) - metric_value(means, goal.metric)) for own, means in members]
        gaps = [gap for gap in gaps if math.isfinite(gap)]
        if gaps:
            entries.append(Optimism(goal.metric, mean(gaps), mean(gap > 0 for gap in gaps)))
    return entries


def describe_confirmations(record: StudyRecord) -> str:
    """Return two or three sentences on the front's fresh seeds; "" where no member was run again."""
    members = confirmed_members(record)
    if not members:
        return ""
    confirmed = sum(trial.confirmation is not None and trial.confirmation.confirmed for trial in members)
    seeds = max(len(trial.confirmation.runs) for trial in members if trial.confirmation)
    count = format_count(len(members), "front member")
    sentences = [f"{confirmed} of {count} stay on the front by the mean of {seeds} fresh seeds."]
    if parts := [_describe_optimism(entry) for entry in optimism(record)]:
        chosen = f"How optimistic a front chosen from {format_count(len(record.trials), 'noisy trial')} is"
        sentences.append(f"{chosen}: on average the search saw {' and '.join(parts)} than the fresh runs are.")
    if record.confirmed_hypervolume is not None:
        seen, confirmed_volume = format_number(record.hypervolume), format_number(record.confirmed_hypervolume)
        sentences.append(f"Hypervolume: {seen} as the search saw it, {confirmed_volume} by the means.")
    return " ".join(sentences)


def _describe_optimism(entry: Optimism) -> str:
    better = "better" if entry.too_good > 0 else "worse"
    gap = f"{entry.metric} {format_number(abs(entry.too_good))} {better}"
    return f"{gap} ({entry.share:.0%} of the members looked better)"


@dataclass(frozen=True)
class AuditedModel:
    """A row of the audits' tables: `trial` is None for start model and oracle."""

    name: str
    trial: TrialRecord | None
    audits: tuple[AuditRecord, ...]

    def audit(self, variant: str) -> AuditRecord | None:
        """Return the model's audit of this variant, None where it has none."""
        return next((audit for audit in self.audits if audit.variant == variant), None)


@dataclass(frozen=True)
class AuditTable:
    """One metric by model and variant; `variants` has each variant's meaning by its name."""

    metric: str
    variants: dict[str, str]
    models: list[AuditedModel]


def audit_tables(record: StudyRecord) -> list[AuditTable]:
    """Return a table per metric that an audit measured: metrics of leaks first, then those of utility."""
    models = list(_audited_models(record))
    measured = {audit.variant for model in models for audit in model.audits}
    variants = {name: meaning for name, meaning in variant_meanings().items() if name in measured}
    metrics = dict.fromkeys(key for model in models for audit in model.audits for key in audit.after)
    return [
        AuditTable(metric, {v: text for v, text in variants.items() if _is_measured(models, v, metric)}, models)
        for metric in sorted(metrics, key=leak_order)
    ]


def _audited_models(record: StudyRecord) -> Iterable[AuditedModel]:
    for name, scores in (("start model", record.start), ("oracle", record.oracle)):
        if scores and scores.audits:
            yield AuditedModel(name, None, scores.audits)
    for trial in front_by_alias(record):
        if trial.audits:
            yield AuditedModel(f"trial {trial.number}", trial, trial.audits)


def _is_measured(models: list[AuditedModel], variant: str, metric: str) -> bool:
    return any(audit.variant == variant and metric in audit.after for model in models for audit in model.audits)


def leak_order(metric: str) -> tuple[int, str]:
    """Return the key by which metrics of audits are sorted: leaks first, the one that all questions have at the front,
    then those of utility."""
    leaks = (name for benchmark in BENCHMARKS.values() for name in benchmark.leaks)
    order = [*dict.fromkeys(("forget_rouge", *leaks, *FULL))]
    return (order.index(metric) if metric in order else len(order)), metric
