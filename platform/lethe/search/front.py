"""Which finished trials are on the Pareto front, and which of them have a name."""

from __future__ import annotations

import math

import numpy as np

from lethe.records import ObjectiveRecord, TrialRecord
from lethe.search.pareto import feasible, hypervolume, knee, ranks


def mark_front(
    trials: tuple[TrialRecord, ...], objectives: tuple[ObjectiveRecord, ...]
) -> tuple[TrialRecord, ...]:
    """The same trials with `pareto_rank` (0: front) and `feasible` set; only complete trials have a rank."""
    whole = [t for t in trials if _finite(t, objectives)]
    marks: dict[int, tuple[int | None, bool]] = {}
    if whole:
        values, directions, floors = _arrays(whole, objectives)
        allowed = feasible(values, floors, directions)
        order = np.full(len(whole), -1)
        if allowed.any():
            order[allowed] = ranks(values[allowed], directions)
        marks = {
            t.number: (int(r) if ok else None, bool(ok)) for t, r, ok in zip(whole, order, allowed, strict=True)
        }
    none: tuple[int | None, bool] = (None, False)
    return tuple(
        t.model_copy(update=dict(zip(("pareto_rank", "feasible"), marks.get(t.number, none), strict=True)))
        for t in trials
    )


def name_front(trials: tuple[TrialRecord, ...], objectives: tuple[ObjectiveRecord, ...]) -> dict[str, int]:
    """Aliases of front members by trial number: `knee`, and `best-<metric>` for every objective."""
    front = [t for t in trials if t.on_front]
    if not front:
        return {}
    values, directions, floors = _arrays(front, objectives)
    signed = values * np.where(np.array(directions) == "minimize", 1.0, -1.0)
    names = {f"best-{o.metric}": front[int(signed[:, i].argmin())].number for i, o in enumerate(objectives)}
    return {"knee": front[int(knee(values, directions, floors))].number, **names}


def front_hypervolume(trials: tuple[TrialRecord, ...], objectives: tuple[ObjectiveRecord, ...]) -> float | None:
    """Area between the front and the floors; None without a front or where an objective has no floor."""
    front = [t for t in trials if t.on_front]
    if not front or any(o.floor is None for o in objectives):
        return None
    values, directions, floors = _arrays(front, objectives)
    return float(hypervolume(values, directions, floors))


def _finite(trial: TrialRecord, objectives: tuple[ObjectiveRecord, ...]) -> bool:
    return trial.verdict == "complete" and all(
        math.isfinite(trial.metrics.get(o.metric, math.nan)) for o in objectives
    )


def _arrays(
    trials: list[TrialRecord], objectives: tuple[ObjectiveRecord, ...]
) -> tuple[np.ndarray, list[str], np.ndarray]:
    values = np.array([[t.metrics[o.metric] for o in objectives] for t in trials], dtype=float)
    floors = np.array([math.nan if o.floor is None else o.floor for o in objectives], dtype=float)
    return values, [o.direction for o in objectives], floors
