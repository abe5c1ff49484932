"""Audits as objectives of a search: a number that an audit measures at the end of every trial, such as
`audit_relearn_forget_rouge`, or by a short name `relearned`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lethe.config.audits import Audit, Audits, metric_name
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.metrics import Metric
from lethe.errors import UserError

# Short names of objectives, each with its variant; the metric is the first of the benchmark's `leaks`.
SHORT_NAMES = {"relearned": "relearn", "rounded8": "quant8", "rounded4": "quant4"}


def full_names(objectives: Mapping[str, Any], benchmark: BenchmarkConfig) -> dict[str, Any]:
    """Return `objectives` with metrics in the place of short names. Raises ValueError where two name one metric."""
    found: dict[str, Any] = {}
    for name, goal in objectives.items():
        metric = metric_name(SHORT_NAMES[name], benchmark.leaks[0]) if name in SHORT_NAMES else name
        if metric in found:
            raise ValueError(f"{metric} is there twice, {'once ' if name != metric else ''}as {name}")
        found[metric] = goal
    return found


def audited_metrics(benchmark: BenchmarkConfig) -> dict[str, Metric]:
    """Return every metric that an audit of a model of this benchmark can measure, by its full name."""
    return {
        metric_name(variant, name): replace(metric, meaning=f"{metric.meaning}, {meaning}", needs=())
        for audit in _possible(benchmark)
        for variant, meaning in audit.meanings.items()
        for name, metric in audit.measured(variant, benchmark).items()
    }


def _possible(benchmark: BenchmarkConfig) -> Iterator[type[Audit]]:
    return (audit for audit in Audit.registered.values() if benchmark.has_questions or not audit.needs_questions)


def needed_audits(objectives: Iterable[str], given: Audits | None, benchmark: BenchmarkConfig) -> Audits | None:
    """Return the audits that measure these objectives, with as few variants as do; None where none is an audit's.

    Their settings are those of the study's audits `given`, else the defaults. Raises UserError for a variant that these
    do not try.
    """
    asked = given.asked() if given else {}
    wanted: dict[str, dict[str, str]] = {}  # audit -> variant -> the first objective that needs it
    for objective in objectives:
        for audit in _possible(benchmark):
            for variant in audit.meanings:
                if objective in (metric_name(variant, name) for name in audit.measured(variant, benchmark)):
                    wanted.setdefault(audit.name, {}).setdefault(variant, objective)
    audits: dict[str, Audit] = {}
    for name, variants in wanted.items():
        config = asked.get(name) or Audit.registered[name]()
        for variant, objective in variants.items():
            if variant not in config.variants():
                raise UserError(
                    f"objectives.{objective}: audits.{name} tries {', '.join(config.variants())}: let it try {variant}"
                )
        audits[name] = config.narrowed(variants)
    return Audits.model_validate(audits) if audits else None
