"""Which finished trials are on the Pareto front, and which of them have a name."""

from __future__ import annotations

import math

import numpy as np

from lethe.records import ObjectiveRecord, TrialRecord
from lethe.search.frame import Frame

Trials = tuple[TrialRecord, ...]


def objectives(frame: Frame) -> tuple[ObjectiveRecord, ...]:
    """The frame as records."""
    parts = zip(frame.names, frame.directions, frame.floors, strict=True)
    return tuple(ObjectiveRecord(metric=n, direction=d, floor=f) for n, d, f in parts)


def mark_front(trials: Trials, frame: Frame) -> Trials:
    """The same trials with `pareto_rank` (0: front) and `feasible` set; only complete, finite trials have a rank.
    Where both are right already it is the same object."""
    whole = _whole(trials, frame)
    values = _values(whole, frame)
    marks: dict[int, tuple[int, bool]] = {}
    if whole:
        pairs = zip(frame.ranks(values).tolist(), frame.feasible(values).tolist(), strict=True)
        marks = {t.number: pair for t, pair in zip(whole, pairs, strict=True)}
    return tuple(_marked(t, *marks.get(t.number, (None, False))) for t in trials)


def _marked(trial: TrialRecord, rank: int | None, feasible: bool) -> TrialRecord:
    if (trial.pareto_rank, trial.feasible) == (rank, feasible):
        return trial
    return trial.model_copy(update={"pareto_rank": rank, "feasible": feasible})


def name_front(trials: Trials, frame: Frame) -> dict[str, int]:
    """Aliases of front members by trial number: `knee`, and `best-<metric>` for every objective."""
    front = [t for t in trials if t.on_front]
    if not front:
        return {}
    values = _values(front, frame)
    gains = frame.gains(values)
    names = {f"best-{name}": front[int(gains[:, i].argmax())].number for i, name in enumerate(frame.names)}
    knee = frame.knee(values)
    return names if knee is None else {"knee": front[knee].number, **names}


def chosen(trials: Trials, frame: Frame) -> int | None:
    """The number of the trial that stands for all of them: the knee, or without a front the complete one with the
    smallest worst violation of a floor."""
    if "knee" in (names := name_front(trials, frame)):
        return names["knee"]
    whole = _whole(trials, frame)
    worst = [max(frame.violations(row).values(), default=0.0) for row in _values(whole, frame)]
    return whole[int(np.argmin(worst))].number if whole else None


def front_hypervolume(trials: Trials, frame: Frame) -> float:
    """Volume between front and floors in floor-normalised objectives; 1 would be the oracle's forgetting at the
    start model's utility."""
    whole = _whole(trials, frame)
    return float(frame.hypervolume(_values(whole, frame))) if whole else 0.0


def _whole(trials: Trials, frame: Frame) -> list[TrialRecord]:
    return [
        t for t in trials if t.verdict == "complete" and all(math.isfinite(v) for v in frame.values(t.metrics))
    ]


def _values(trials: list[TrialRecord], frame: Frame) -> np.ndarray:
    return np.array([frame.values(t.metrics) for t in trials], dtype=float).reshape(-1, len(frame.names))
