"""Metrics by epoch with one line per arm, as SOUL's Figure 2; hypervolumes by seed; quality against cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm, Cell
from lethe.reporting.comparison.layouts import HYPERVOLUME, Column
from lethe.reporting.lines import Chart, Line, Point, apart, lay_out, pieces, references, way
from lethe.reporting.scales import Scale, scale

WIDE, ROW, TOP = 880, 19, 8
WIDTH, HEIGHT, SIDE, BOTTOM = 430, 270, 52, 46


def arm_charts(record: StudyRecord, of: Sequence[Arm], columns: Iterable[Column]) -> list[Chart]:
    """A chart per column that a chosen trial reported by epoch."""
    found = [_chart(record, of, column) for column in columns]
    return [chart for chart in found if chart.lines]


def _chart(record: StudyRecord, of: Sequence[Arm], column: Column) -> Chart:
    known = references(record, column.key, column.factor)
    ways = [[way(trial, column.key, column.factor) for trial in arm.chosen] for arm in of]
    last = max((epoch for found in ways for steps in found if len(steps) > 1 for epoch, _ in steps), default=1.0)
    begin = (0.0, known.get("start", math.nan))
    drawn = [line for arm, found in zip(of, ways, strict=True) for line in _lines(arm, column, found, begin, last)]
    lines = sorted(drawn, key=lambda line: bool(line.label))  # means on top of seeds
    return lay_out(column.label, lines, known, right=_room(of))


def _room(of: Iterable[Arm]) -> float:
    """Pixels for the longest name beside a drawing."""
    return 22 + 6.8 * max(len(arm.name) for arm in of)


def _lines(arm: Arm, column: Column, ways: list[list[Point]], begin: Point, last: float) -> list[Line]:
    """Seeds, where there are several, then their mean; a level where an arm has no way, only an end."""
    moving = [[begin, *steps] for steps in ways if len(steps) > 1]
    if not moving:
        level = arm.shown(column).mean
        return [Line(arm.name, "front flat", pieces([(0.0, level), (last, level)]), arm.name, arm.color)]
    look = f"front dash{arm.behind}"
    seeds = [Line(f"{arm.name}, one seed", "seed", pieces(steps), "", arm.color) for steps in moving]
    whole = Line(f"{arm.name}, mean of {len(moving)}", look, pieces(mean_way(moving)), arm.name, arm.color)
    return [*(seeds if len(seeds) > 1 else []), whole]


def mean_way(ways: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean over ways by epoch: one that has ended keeps its last value, one without a value is left out."""
    epochs = sorted({epoch for steps in ways for epoch, _ in steps})
    return [(epoch, Cell(tuple(_at(steps, epoch) for steps in ways)).mean) for epoch in epochs]


def _at(steps: Sequence[Point], epoch: float) -> float:
    last, number = steps[-1]
    return number if epoch > last else dict(steps).get(epoch, math.nan)


@dataclass(frozen=True)
class Strip:
    """Hypervolumes: one row per arm at a height in pixels, one dot per seed."""

    sx: Scale
    bottom: float
    rows: list[tuple[Arm, float, Cell]]


def strip(of: Sequence[Arm]) -> Strip:
    """In the order of the table."""
    cells = [(arm, arm.cell(HYPERVOLUME)) for arm in of]
    rows = [(arm, TOP + ROW * (place + 0.5), cell) for place, (arm, cell) in enumerate(cells)]
    sx = scale([0.0, *(number for _, cell in cells for number in cell.known)], _room(of), WIDE - 16)
    return Strip(sx, TOP + ROW * len(rows), rows)


@dataclass(frozen=True)
class Cost:
    """Quality against cost, one point per arm: the means, the spreads as bars, and the label's height in pixels."""

    x: Column
    y: Column
    sx: Scale
    sy: Scale
    points: list[tuple[Arm, Cell, Cell, float]]


def cost(of: Iterable[Arm], x: Column, y: Column) -> Cost:
    """Arms that have both."""
    points = [(arm, arm.shown(x), arm.shown(y)) for arm in of]
    points = [(arm, a, b) for arm, a, b in points if math.isfinite(a.mean) and math.isfinite(b.mean)]
    across = scale([0.0, *(end for _, cell, _ in points for end in bar(cell))], SIDE, WIDTH - 20)
    up = scale([end for _, _, cell in points for end in bar(cell)], HEIGHT - BOTTOM, 16)
    points.sort(key=lambda point: up(point[2].mean))
    heights = apart([up(cell.mean) - 7 for _, _, cell in points], up.start)
    return Cost(x, y, across, up, [(*point, height) for point, height in zip(points, heights, strict=True)])


def bar(cell: Cell) -> Point:
    """From the mean less the spread to the mean and the spread."""
    return cell.mean - (cell.spread or 0.0), cell.mean + (cell.spread or 0.0)
