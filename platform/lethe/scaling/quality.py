"""What the searches at several sizes found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from lethe.config.base import canonical_json, short_digest
from lethe.config.study import Study
from lethe.records import StudyRecord, TrialRecord
from lethe.scaling.design import SearchPoint
from lethe.scaling.records import SearchRecord
from lethe.search.frame import Frame
from lethe.search.front import chosen, front_hypervolume, mark_front


def searched(
    point: SearchPoint, record: StudyRecord, parameters: float, target_of_start: float, prepared: float
) -> SearchRecord:
    """One search as numbers. `prepared`: seconds that making its models took, 0 where they were cached."""
    frame = Frame.of(point.study.objectives, record.start.metrics)
    trials = mark_front(record.trials, frame)
    number = chosen(trials, frame)
    goal = record.objectives[0]
    target = record.start.metrics[goal.metric] * target_of_start
    steps = {t.number: steps_to(t, goal.metric, target, goal.direction) for t in trials}
    reached = {n: s for n, s in steps.items() if s is not None}
    wins = [t.metrics["win_rate"] for t in trials if "win_rate" in t.metrics]
    return SearchRecord(
        size=point.size,
        arm=point.arm,
        forget=point.forget,
        parameters=parameters,
        trials=tuple(t.number for t in trials),
        hypervolume=front_hypervolume(trials, frame),
        chosen=number,
        start=record.start.metrics,
        target=target,
        steps_to_target=reached.get(number, min(reached.values(), default=None)) if number is not None else None,
        reached=len(reached),
        seconds={"prepare": prepared, **_seconds(trials)},
        win_rate=float(np.median(wins)) if wins else None,
        scores={setting(t, point.study): front_hypervolume((t,), frame) for t in trials},
    )


def steps_to(trial: TrialRecord, metric: str, target: float, direction: str) -> float | None:
    """Optimizer steps at the first evaluation that is at least as good as the target."""
    sign = 1 if direction == "minimize" else -1
    reports = [r for r in (*trial.series, trial.metrics) if "optimizer_step" in r]
    return next((r["optimizer_step"] for r in reports if sign * r.get(metric, math.inf * sign) <= sign * target), None)


def _seconds(trials: Iterable[TrialRecord]) -> dict[str, float]:
    keys = ("train_seconds", "evaluate_seconds", "seconds")
    train, evaluate, whole = (sum(t.metrics.get(key, 0.0) for t in trials) for key in keys)
    return {"train": train, "evaluate": evaluate, "rest": max(0.0, whole - train - evaluate)}


def setting(trial: TrialRecord, study: Study) -> str:
    """Names what a trial was given by the search: equal at every size for equal proposals."""
    return short_digest(canonical_json(given(trial, study)))


def given(trial: TrialRecord, study: Study) -> dict[str, Any]:
    """The searched parameters that the trial has."""
    return {key: trial.params[key] for key in study.space if key in trial.params}
