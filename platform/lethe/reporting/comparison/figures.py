"""Metrics by epoch with one line per arm, as SOUL's Figure 2; hypervolumes by seed; quality against cost.

The comparison as a PNG, for slides and papers: curves by epoch, the hypervolumes, quality against cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import HYPERVOLUME, Arm, Cell, Column, arms, layout_of
from lethe.reporting.curves import Chart, Line, Point, apart, lay_out, pieces, references, way
from lethe.reporting.front import INK, SOFT, blank, plain, png, style
from lethe.reporting.scales import Scale, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


WIDTH_INCHES, ROW_INCHES = 11.6, 4.2  # inches
DASHES = {"front dash1": (0, (4, 2)), "front dash2": (0, (4, 2, 1, 2)), "front flat": (0, (1, 3))}


def comparison_png(record: StudyRecord) -> bytes:
    """The bytes of comparison.png."""
    layout, found = layout_of(record), arms(record)
    charts = arm_charts(record, found, layout.curves)
    panels: list[Callable[[Axes], None]] = [partial(_curves, chart) for chart in charts]
    panels.append(partial(_strip, strip(found)))
    if layout.cost:
        panels.append(partial(_cost, cost(found, *layout.cost)))
    rows = math.ceil(len(panels) / 2)
    figure = blank(WIDTH_INCHES, ROW_INCHES * rows)
    grid = figure.add_gridspec(rows, 2)
    for place, draw in enumerate(panels):
        alone = place % 2 == 0 and place == len(panels) - 1
        draw(figure.add_subplot(grid[place // 2, :] if alone else grid[place // 2, place % 2]))
    return png(figure)


def _curves(chart: Chart, plot: Axes) -> None:
    for line in chart.lines:
        for piece in line.pieces:
            plot.plot(*zip(*piece, strict=True), color=line.color, **_stroke(line))
        if line.label:
            plot.scatter(*line.end, s=22, color=line.color, edgecolors="white", zorder=5)
    for at, line in chart.labels:
        where = (chart.sx.high * 1.03, chart.sy.back(at))
        plot.annotate(plain(line.label), where, color=line.color, fontsize=8.5, va="center", annotation_clip=False)
    for name, at, label in chart.references:
        plot.axhline(chart.sy.back(at), color=INK, linewidth=1, linestyle=(0, (1, 3)), alpha=0.6)
        plot.annotate(name, (chart.sx.high * 0.01, chart.sy.back(label)), color=INK, fontsize=8.5, fontweight="bold")
    style(plot, chart.label)
    plot.set_xlim(chart.sx.low, chart.sx.high * 1.02)
    plot.set_ylim(chart.sy.low, chart.sy.high)
    plot.xaxis.get_major_locator().set_params(integer=True)
    plot.set_xlabel("epoch", color=INK)


def _stroke(line: Line) -> dict[str, object]:
    if line.look == "seed":
        return {"linewidth": 0.9, "alpha": 0.3}
    return {"linewidth": 1.9, "linestyle": DASHES.get(line.look, "-")}


def _strip(shown: Strip, plot: Axes) -> None:
    for arm, height, cell in shown.rows:
        plot.scatter(cell.known, [height] * len(cell.known), s=30, color=arm.color, alpha=0.55, linewidths=0)
        plot.scatter([cell.mean], [height], s=190, marker="|", color=arm.color, linewidths=2.2)
    style(plot, "hypervolume by arm: seeds, mean")
    plot.set_xlim(shown.sx.low, shown.sx.high)
    plot.set_ylim(shown.bottom, 0)
    plot.set_yticks([height for _, height, _ in shown.rows], [plain(arm.name) for arm, _, _ in shown.rows])
    for label, (arm, _, _) in zip(plot.get_yticklabels(), shown.rows, strict=True):
        label.set_color(arm.color)
    plot.set_xlabel("hypervolume (higher is better)", color=INK)


def _cost(shown: Cost, plot: Axes) -> None:
    for arm, x, y, label in shown.points:
        spreads = {"xerr": x.spread or 0.0, "yerr": y.spread or 0.0}
        plot.errorbar(x.mean, y.mean, **spreads, color=arm.color, marker="o", markersize=6, linewidth=1.1)
        where = (shown.sx.back(shown.sx(x.mean) + 14), shown.sy.back(label))
        arrow = {"arrowstyle": "-", "color": arm.color, "alpha": 0.6}
        look = {"arrowprops": arrow, "color": arm.color, "fontsize": 8.5, "va": "center"}
        plot.annotate(plain(arm.name), (x.mean, y.mean), where, **look)
    style(plot, f"{shown.y.label} against cost")
    plot.set_xlim(shown.sx.low, shown.sx.high)
    plot.set_ylim(shown.sy.low, shown.sy.high)
    plot.set_xlabel(shown.x.label, color=SOFT)
