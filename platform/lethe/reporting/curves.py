"""A number by epoch, one line per trial or arm: whether it was still moving when its budget ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.scales import Scale, scale
from lethe.reporting.trial_views import KINDS, names, trial_kind, value, wanted

WIDTH, HEIGHT = 430, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 58, 16, 40

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Someone's way as data, a gap where a value is not finite. `look`: CSS classes; `label`: beside the end, where
    a dot is; `color`: where it is not the look's own."""

    name: str
    look: str
    pieces: list[list[Point]]
    label: str = ""
    color: str = ""

    @property
    def end(self) -> Point:
        """The last point."""
        return self.pieces[-1][-1]


@dataclass(frozen=True)
class Chart:
    """Points are data; `sx`, `sy` make pixels of them. `labels` and `references` (the start model, the oracle) have
    their heights in pixels, the latter their labels' too."""

    label: str
    sx: Scale
    sy: Scale
    lines: list[Line]
    labels: list[tuple[float, Line]]
    references: list[tuple[str, float, float]]
    floor: float | None
    epochs: list[tuple[float, str]]


def charts(record: StudyRecord) -> list[Chart]:
    """A chart per objective that any trial reported, a line per trial."""
    found = [_chart(record, goal) for goal in record.objectives]
    return [chart for chart in found if chart.lines]


def _chart(record: StudyRecord, goal: ObjectiveRecord) -> Chart:
    kinds = list(KINDS)
    known = references(record, goal.metric)
    order = sorted(record.trials, key=lambda trial: -kinds.index(trial_kind(trial)))
    ways = [(trial, way(trial, goal.metric)) for trial in order]
    lines = [_line(record, trial, [(0.0, known.get("start", math.nan)), *found]) for trial, found in ways if found]
    return lay_out(f"{goal.metric} ({wanted(goal)})", lines, known, floor=goal.floor)


def _line(record: StudyRecord, trial: TrialRecord, points: list[Point]) -> Line:
    knee = "knee" in names(record).get(trial.number, [])
    look = f"{trial_kind(trial)}{' is-knee' if knee else ''}"
    label = f"{trial.number}{' knee' if knee else ''}" if trial_kind(trial) == "front" else ""
    return Line(f"trial {trial.number}, {KINDS[trial_kind(trial)]}", look, pieces(points), label)


def way(trial: TrialRecord, key: str, factor: float = 1.0) -> list[Point]:
    """Epoch and value of each report; NaN where it lacks one."""
    reports = enumerate(trial.series, start=1)
    steps = [(float(report.get("epoch", place)), value(report, key) * factor) for place, report in reports]
    return [(epoch, number) for epoch, number in steps if math.isfinite(epoch)]


def pieces(points: Iterable[Point]) -> list[list[Point]]:
    """The points, broken where a value is not finite."""
    found: list[list[Point]] = [[]]
    for epoch, number in points:
        if math.isfinite(number):
            found[-1].append((epoch, number))
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def references(record: StudyRecord, key: str, factor: float = 1.0) -> dict[str, float]:
    """What the start model and the oracle have of a metric, where they have it."""
    models = {"start": record.start, "oracle": record.oracle}
    known = {name: value(model.metrics, key) * factor for name, model in models.items() if model}
    return {name: number for name, number in known.items() if math.isfinite(number)}


def lay_out(
    label: str, lines: Sequence[Line], known: dict[str, float], *, floor: float | None = None, right: float = RIGHT
) -> Chart:
    """A chart of lines, with `right` pixels for the labels at their ends."""
    drawn = [line for line in lines if line.pieces]
    points = [point for line in drawn for piece in line.pieces for point in piece]
    sx = Scale(0.0, max([1.0, *(epoch for epoch, _ in points)]), LEFT, WIDTH - right)
    floors = [] if floor is None else [floor]
    sy = scale([*(number for _, number in points), *known.values(), *floors], HEIGHT - BOTTOM, TOP)
    ticks = sx.ticks(max(1, min(5, int(sx.high))))  # whole epochs
    marks = [(name, sy(known[name]), height) for name, height in zip(known, _beside(known, sy), strict=True)]
    return Chart(label, sx, sy, drawn, _labels(drawn, sy), marks, None if floor is None else sy(floor), ticks)


def _beside(known: dict[str, float], sy: Scale) -> list[float]:
    """Labels go above their lines, but the lower of two close lines has its own below."""
    heights = [sy(number) for number in known.values()]
    close = len(heights) == 2 and abs(heights[0] - heights[1]) < 16
    lower = heights.index(max(heights)) if close else None
    return [at + 14 if place == lower else at - 5 for place, at in enumerate(heights)]


def _labels(lines: Iterable[Line], sy: Scale) -> list[tuple[float, Line]]:
    """Heights for the labels, from the top down."""
    labelled = sorted((line for line in lines if line.label), key=lambda line: sy(line.end[1]))
    return list(zip(apart([sy(line.end[1]) for line in labelled], sy.start), labelled, strict=True))


def apart(heights: Sequence[float], lowest: float, gap: float = 12.0) -> list[float]:
    """Ascending heights of labels, moved down where they are nearer than `gap`, and up again from `lowest`."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    limit = max([lowest, *heights])
    for place in reversed(range(len(found))):
        found[place] = min(found[place], limit)
        limit = found[place] - gap
    return found
