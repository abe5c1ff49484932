"""The data of each trial for a report's scripts, which make its page and comparisons of two in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.evidence import EvidenceRow
from lethe.reporting.scales import format_duration
from lethe.reporting.trial_views import (
    KIND_LABELS,
    aliases_by_trial,
    front_by_alias,
    sample_answers,
    trial_kind,
    varying_parameters,
)


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
        "start": record.start.metrics,
        "oracle": record.oracle.metrics if record.oracle else None,
        "trials": {trial.number: _trial(record, trial, server) for trial in record.trials},
    }


def _trial(record: StudyRecord, trial: TrialRecord, server: str) -> dict[str, Any]:
    done = KIND_LABELS[trial_kind(trial)] if trial.verdict == "complete" else trial.verdict.replace("_", " ")
    return {
        "kind": done,
        "aliases": aliases_by_trial(record).get(trial.number, []),
        "reason": trial.reason,
        "when": _when(trial),
        "place": trial.version or trial.folder,
        "link": f"{server.rstrip('/')}/{trial.page}" if server and trial.page else None,
        "params": trial.params,
        "metrics": {**trial.metrics, **trial.afterwards},
        "series": trial.series,
        "forgotten": trial.forgotten.model_dump() if trial.forgotten else None,
        "samples": [vars(row) for row in sample_answers(record, trial)],
    }


def _when(trial: TrialRecord) -> str:
    if not trial.began:
        return ""
    began = datetime.fromtimestamp(trial.began, UTC).strftime("%-d %B %Y, %H:%M UTC")
    return began + (f", {format_duration(trial.ended - trial.began)}" if trial.ended > trial.began else "")
