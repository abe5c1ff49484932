"""Each objective by epoch, one line per trial: whether a front member was still moving when its budget ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.facts import KINDS, Kind, kind, names, value, wanted
from lethe.reporting.scales import Scale, scale

WIDTH, HEIGHT = 430, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 58, 16, 40


@dataclass(frozen=True)
class Line:
    """A trial's way, in pixels; a gap where a value is not finite."""

    number: int
    kind: Kind
    named: list[str]
    pieces: list[list[tuple[float, float]]]

    @property
    def end(self) -> tuple[float, float]:
        """The last point."""
        return self.pieces[-1][-1]


@dataclass(frozen=True)
class Chart:
    """One objective. `references` are the start model's and the oracle's names, heights and labels' heights."""

    key: str
    label: str
    sx: Scale
    sy: Scale
    lines: list[Line]
    labels: list[tuple[float, Line]]
    references: list[tuple[str, float, float]]
    floor: float | None
    epochs: list[tuple[float, str]]


def charts(record: StudyRecord) -> list[Chart]:
    """A chart per objective that any trial reported."""
    found = [_chart(record, goal) for goal in record.objectives]
    return [chart for chart in found if chart.lines]


def _chart(record: StudyRecord, goal: ObjectiveRecord) -> Chart:
    ways = {trial.number: _way(trial, goal.metric) for trial in record.trials}
    flat = [point for way in ways.values() for point in way]
    models = {"start": record.start, "oracle": record.oracle}
    known = {name: value(model.metrics, goal.metric) for name, model in models.items() if model}
    known = {name: number for name, number in known.items() if math.isfinite(number)}
    last = max((epoch for epoch, _ in flat), default=1.0)
    sx = Scale(0.0, max(last, 1.0), LEFT, WIDTH - RIGHT)
    floors = [] if goal.floor is None else [goal.floor]
    sy = scale([*(number for _, number in flat), *known.values(), *floors], HEIGHT - BOTTOM, TOP)
    kinds = list(KINDS)
    order = sorted(record.trials, key=lambda trial: -kinds.index(kind(trial)))
    begin = known.get("start", math.nan)
    lines = [_line(record, trial, [(0.0, begin), *ways[trial.number]], sx, sy) for trial in order if ways[trial.number]]
    lines = [line for line in lines if line.pieces]
    ticks = [(place, text) for place, text in sx.ticks(5) if "." not in text]
    references = [(name, sy(known[name]), height) for name, height in zip(known, _beside(known, sy), strict=True)]
    floor = None if goal.floor is None else sy(goal.floor)
    label = f"{goal.metric} ({wanted(goal)})"
    return Chart(goal.metric, label, sx, sy, lines, _spread(lines), references, floor, ticks)


def _way(trial: TrialRecord, key: str) -> list[tuple[float, float]]:
    """Epoch and value of each report that has one."""
    reports = enumerate(trial.series, start=1)
    steps = [(float(report.get("epoch", place)), value(report, key)) for place, report in reports]
    return [(epoch, number) for epoch, number in steps if math.isfinite(epoch)]


def _line(record: StudyRecord, trial: TrialRecord, way: list[tuple[float, float]], sx: Scale, sy: Scale) -> Line:
    pieces: list[list[tuple[float, float]]] = [[]]
    for epoch, number in way:
        if math.isfinite(number):
            pieces[-1].append((sx(epoch), sy(number)))
        elif pieces[-1]:
            pieces.append([])
    return Line(trial.number, kind(trial), names(record).get(trial.number, []), [piece for piece in pieces if piece])


def _beside(known: dict[str, float], sy: Scale) -> list[float]:
    """Labels go above their lines, but the lower of two close lines has its own below."""
    heights = [sy(number) for number in known.values()]
    close = len(heights) == 2 and abs(heights[0] - heights[1]) < 16
    return [at + 14 if close and at == max(heights) else at - 5 for at in heights]


def _spread(lines: list[Line], apart: float = 12.0) -> list[tuple[float, Line]]:
    """Heights for the front members' labels, moved apart where lines end together."""
    placed: list[tuple[float, Line]] = []
    for line in sorted((each for each in lines if each.kind == "front"), key=lambda each: each.end[1]):
        height = line.end[1]
        placed.append((max(height, placed[-1][0] + apart) if placed else height, line))
    return placed
