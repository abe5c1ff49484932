"""The data of each trial for a report's scripts, which make its page and comparisons of two in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.evidence import EvidenceRow
from lethe.reporting.next_steps import trial_steps
from lethe.reporting.opening import references
from lethe.reporting.scales import format_duration, format_number
from lethe.reporting.terms import NAMES
from lethe.reporting.trial_views import (
    KIND_LABELS,
    aliases_by_trial,
    front_by_alias,
    sample_answers,
    trial_kind,
    varying_parameters,
)

METHOD = ("objective.name", "optimizer.name", "adapter.name")


def trial_pages(
    record: StudyRecord, meanings: Mapping[str, str], evidence: Sequence[EvidenceRow], server: str = ""
) -> dict[str, Any]:
    """Return the trials by number, and what they share: the names and meanings of metrics, start model and oracle.

    `server`: the address of the MLflow server that has the runs, empty where there is none.
    """
    goals = [goal.metric for goal in record.objectives]
    main = dict.fromkeys([*goals, *(row.metric for row in evidence)])
    shown = dict.fromkeys(key for trial in record.trials for key in trial.metrics)
    return {
        "objectives": goals,
        "evidence": list(main),
        "meanings": {name: meanings[name] for name in shown if name in meanings},
        "varying": list(varying_parameters(record)),
        "winners": [trial.number for trial in front_by_alias(record)],
        "start": record.start.numbers,
        "oracle": record.oracle.numbers if record.oracle else None,
        "trials": {trial.number: _trial(record, trial, server) for trial in record.trials},
    }


def _trial(record: StudyRecord, trial: TrialRecord, server: str) -> dict[str, Any]:
    done = KIND_LABELS[trial_kind(trial)] if trial.verdict == "complete" else trial.verdict.replace("_", " ")
    return {
        "kind": done,
        "summary": _summary(record, trial),
        "steps": [list(step) for step in trial_steps(record, trial)],
        "aliases": aliases_by_trial(record).get(trial.number, []),
        "reason": trial.reason,
        "when": _when(trial),
        "place": trial.version or trial.folder,
        "link": f"{server.rstrip('/')}/{trial.page}" if server and trial.page else None,
        "params": trial.params,
        "metrics": trial.numbers,
        "series": trial.series,
        "forgotten": trial.forgotten.model_dump() if trial.forgotten else None,
        "samples": [vars(row) for row in sample_answers(record, trial)],
    }


def _summary(record: StudyRecord, trial: TrialRecord) -> list[str]:
    """Return the page's first sentences: the verdict, the objectives beside start model and oracle, the method."""
    verdict = trial.forgotten.describe() if trial.forgotten else ""
    if trial.forgotten and not trial.forgotten.failing:
        verdict = f"forgotten: meets all {len(trial.forgotten.criteria)} criteria"
    scores = [
        f"{goal.metric} {format_number(trial.metrics[goal.metric])}{references(record, goal.metric)}"
        for goal in record.objectives
        if goal.metric in trial.metrics
    ]
    names = [str(trial.params[key]) for key in METHOD if trial.params.get(key)]
    method = ", ".join(NAMES.get(name, name) for name in names)
    parts = [verdict, ", ".join(scores), f"by {method}" if method else ""]
    parts += [f"saved as an adapter of {trial.adapter.describe()}"] if trial.adapter else []
    return [f"{part[:1].upper()}{part[1:]}." for part in parts if part]


def _when(trial: TrialRecord) -> str:
    if not trial.began:
        return ""
    began = datetime.fromtimestamp(trial.began, UTC).strftime("%-d %B %Y, %H:%M UTC")
    return began + (f", {format_duration(trial.ended - trial.began)}" if trial.ended > trial.began else "")
