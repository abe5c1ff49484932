"""The table of a report that shows what each winner still knows, beside start model and oracle."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.config.benchmark import BenchmarkConfig
from lethe.records import StudyRecord
from lethe.reporting.trial_views import front_by_alias


@dataclass(frozen=True)
class EvidenceRow:
    """One metric of start model, winners (the best name first) and oracle; None where a model lacks it."""

    metric: str
    meaning: str
    start: float | None
    winners: tuple[float | None, ...]
    oracle: float | None


def evidence(record: StudyRecord, benchmark: type[BenchmarkConfig]) -> list[EvidenceRow]:
    """Return a row for each metric of `benchmark.evidence` that a winner has; empty without a winner."""
    winners = front_by_alias(record)
    names = benchmark.evidence or tuple(name for name, metric in benchmark.metrics.items() if not metric.cost)
    oracle = record.oracle.metrics if record.oracle else {}
    return [
        EvidenceRow(
            name,
            benchmark.metrics[name].meaning,
            record.start.metrics.get(name),
            tuple(trial.metrics.get(name) for trial in winners),
            oracle.get(name),
        )
        for name in names
        if any(name in trial.metrics for trial in winners)
    ]
