"""The Pareto front as a drawing: where every trial, the start model, the oracle and the floors lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.facts import KINDS, Kind, kind, names, param_names, value, wanted
from lethe.reporting.scales import Scale, scale, setting, short

WIDTH, HEIGHT = 880, 500
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 22, 58

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One objective as a coordinate. A study of one objective is drawn over its trials' numbers."""

    key: str
    label: str
    lower_is_better: bool
    floor: float | None

    def of(self, trial: TrialRecord) -> float:
        """Where a trial lies."""
        return value(trial.metrics, self.key) if self.key else float(trial.number)


@dataclass(frozen=True)
class Mark:
    """A trial on the drawing, with what its tooltip says."""

    trial: TrialRecord
    kind: Kind
    x: float
    y: float
    named: list[str]
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Front:
    """Everything that the templates and the picture draw. Points are data; `sx`, `sy` make pixels of them."""

    x: Axis
    y: Axis
    sx: Scale
    sy: Scale
    marks: list[Mark]
    missing: list[TrialRecord]
    start: Point | None
    oracle: Point | None
    stairs: list[Point]
    counts: dict[Kind, int]


def axes(record: StudyRecord) -> tuple[Axis, Axis]:
    """The first two objectives."""
    found = [
        Axis(goal.metric, f"{goal.metric} ({wanted(goal)})", goal.direction == "minimize", goal.floor)
        for goal in record.objectives[:2]
    ]
    if len(found) == 1:
        found.insert(0, Axis("", "trial", True, None))
    return found[0], found[1]


def front(record: StudyRecord) -> Front:
    """Lay the study out."""
    x, y = axes(record)
    start = _point(x, y, record.start.metrics)
    oracle = _point(x, y, record.oracle.metrics) if record.oracle else None
    placed = [trial for trial in record.trials if _finite((x.of(trial), y.of(trial)))]
    others = [point for point in (start, oracle) if point]
    sx = scale([*(x.of(t) for t in placed), *(p[0] for p in others), *_known(x.floor)], LEFT, WIDTH - RIGHT)
    sy = scale([*(y.of(t) for t in placed), *(p[1] for p in others), *_known(y.floor)], HEIGHT - BOTTOM, TOP)
    kinds = list(KINDS)
    order, told = sorted(placed, key=lambda t: -kinds.index(kind(t))), param_names(record)
    marks = [_mark(record, trial, told, sx(x.of(trial)), sy(y.of(trial))) for trial in order]
    missing = [trial for trial in record.trials if trial not in placed]
    stairs = _stairs(record, x, y, sx, sy)
    counts = {each: sum(mark.kind == each for mark in marks) for each in KINDS}
    return Front(x, y, sx, sy, marks, missing, start, oracle, stairs, counts)


def _mark(record: StudyRecord, trial: TrialRecord, told: dict[str, str], x: float, y: float) -> Mark:
    goals = [(goal.metric, short(value(trial.metrics, goal.metric))) for goal in record.objectives]
    shown = [(name, setting(trial.params[key])) for key, name in told.items() if key in trial.params]
    cost = [(key, setting(trial.metrics[key])) for key in ("win_rate", "seconds") if key in trial.metrics]
    named = names(record).get(trial.number, [])
    return Mark(trial, kind(trial), x, y, named, goals + shown + cost)


def _stairs(record: StudyRecord, x: Axis, y: Axis, sx: Scale, sy: Scale) -> list[Point]:
    """The border between what the front beats and what it does not, from edge to edge. Only two objectives have one."""
    points = sorted(
        {(x.of(trial), y.of(trial)) for trial in record.trials if trial.on_front}, reverse=not x.lower_is_better
    )
    points = [point for point in points if _finite(point)]
    if len(record.objectives) != 2 or not points:
        return []
    worst_x = x.floor if x.floor is not None else (sx.high if x.lower_is_better else sx.low)
    worst_y = y.floor if y.floor is not None else (sy.high if y.lower_is_better else sy.low)
    steps: list[Point] = [(points[0][0], worst_y)]
    for place, (px, py) in enumerate(points):
        steps.append((px, py))
        next_x = points[place + 1][0] if place + 1 < len(points) else worst_x
        steps.append((next_x, py))
    return steps


def _point(x: Axis, y: Axis, metrics: dict[str, float]) -> Point | None:
    point = (value(metrics, x.key), value(metrics, y.key))
    return point if _finite(point) else None


def _finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _known(floor: float | None) -> list[float]:
    return [] if floor is None else [floor]
