"""Drawings of a comparison: metrics by epoch with a line per arm (as SOUL's Figure 2), hypervolumes by seed, and
quality against cost. The layouts are drawn as SVG and by plotly on the page, and as one picture by `comparison_png`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import HYPERVOLUME, Arm, Cell, Column, Layout, arms, layout_of
from lethe.reporting.curves import (
    Chart,
    Line,
    Point,
    finite_segments,
    lay_out_chart,
    metric_by_epoch,
    reference_values,
    separate_labels,
)
from lethe.reporting.figure_style import ARM_MARKERS, INK, SOFT, escape_dollars, new_figure, png_bytes, style_axes
from lethe.reporting.scales import Scale, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRIP_WIDTH, STRIP_ROW, STRIP_TOP, LABEL_ROW = 880, 19, 8, 15
WIDTH, HEIGHT, SIDE, BOTTOM = 430, 270, 52, 46


def arm_charts(record: StudyRecord, arms: Sequence[Arm], columns: Iterable[Column]) -> dict[str, Chart]:
    """Return by metric a chart for each column that a chosen trial reported by epoch; references are level lines."""
    charts = {column.key: _arm_chart(record, arms, column) for column in columns}
    return {key: chart for key, chart in charts.items() if chart.lines}


def curve_columns(record: StudyRecord, layout: Layout) -> list[Column]:
    """Return the columns that are drawn by epoch: the layout's, then the objectives."""
    goals = [Column(goal.metric, goal.metric, better=goal.direction) for goal in record.objectives]
    return [*layout.curves, *(goal for goal in goals if goal.key not in {column.key for column in layout.curves})]


def _arm_chart(record: StudyRecord, arms: Sequence[Arm], column: Column) -> Chart:
    references = reference_values(record, column.key, column.factor)
    levels = {arm.name: arm.column_cell(column).mean for arm in arms if arm.reference}
    arms = [arm for arm in arms if not arm.reference]
    curves = [[metric_by_epoch(trial, column.key, column.factor) for trial in arm.chosen] for arm in arms]
    last_epoch = max(
        (epoch for of_arm in curves for points in of_arm if len(points) > 1 for epoch, _ in points), default=1.0
    )
    start = (0.0, references.get("start", math.nan))
    lines = [
        line
        for arm, of_arm in zip(arms, curves, strict=True)
        for line in _arm_lines(arm, column, of_arm, start, last_epoch)
    ]
    means_last = sorted(lines, key=lambda line: bool(line.label))  # so that they are drawn on top
    references |= {name: level for name, level in levels.items() if math.isfinite(level)}
    return lay_out_chart(column.label, means_last, references, right=_label_width(arms))


def _label_width(arms: Iterable[Arm]) -> float:
    """Return the pixels that the longest name of an arm takes beside a drawing."""
    return 22 + 6.8 * max((len(arm.name) for arm in arms), default=0)


def _arm_lines(arm: Arm, column: Column, curves: list[list[Point]], start: Point, last_epoch: float) -> list[Line]:
    """Return the seeds' lines, where there are several, then their mean; a level line for an arm without epochs."""
    moving = {
        trial.number: [start, *points] for trial, points in zip(arm.chosen, curves, strict=True) if len(points) > 1
    }
    if not moving:
        level = arm.column_cell(column).mean
        segments = finite_segments([(0.0, level), (last_epoch, level)])
        return [Line(arm.name, "front flat", segments, arm.name, arm.color)]
    seeds = [
        Line(f"{arm.name}, trial {number}", "seed", finite_segments(points), "", arm.color, number)
        for number, points in moving.items()
    ]
    mean_segments = finite_segments(mean_curve(list(moving.values())))
    mean_line = Line(
        f"{arm.name}, mean of {len(moving)}", f"front dash{arm.successors}", mean_segments, arm.name, arm.color
    )
    return [*(seeds if len(seeds) > 1 else []), mean_line]


def mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the mean of the curves by epoch. A curve without a number there counts with its last one before, so that
    the mean does not jump where a curve ends or leaves an epoch out."""
    epochs = sorted({epoch for points in curves for epoch, _ in points})
    return [(epoch, Cell(tuple(_value_at(points, epoch) for points in curves)).mean) for epoch in epochs]


def _value_at(points: Sequence[Point], epoch: float) -> float:
    return next((value for at, value in reversed(points) if at <= epoch and math.isfinite(value)), math.nan)


@dataclass(frozen=True)
class HypervolumeStrip:
    """Hypervolumes: (arm, height in pixels, one number per seed) of each row. `references` are vertical lines: (arm,
    height of its name in pixels, its mean)."""

    x_scale: Scale
    top: float
    bottom: float
    rows: list[tuple[Arm, float, Cell]]
    references: list[tuple[Arm, float, float]]


def hypervolume_strip(arms: Sequence[Arm]) -> HypervolumeStrip:
    """Lay out the hypervolumes of the arms, in the order of the table."""
    cells = [(arm, arm.cell(HYPERVOLUME)) for arm in arms]
    numbers = [number for _, cell in cells for number in cell.known]
    x_scale = scale([0.0, *numbers], _label_width(arms), STRIP_WIDTH - 16)
    levels = [(arm, cell.mean) for arm, cell in cells if arm.reference and cell.known]
    named = [(arm, STRIP_TOP + LABEL_ROW * (index + 0.7), mean) for index, (arm, mean) in enumerate(levels)]
    top = STRIP_TOP + LABEL_ROW * len(named)
    competing = [(arm, cell) for arm, cell in cells if not arm.reference]
    rows = [(arm, top + STRIP_ROW * (index + 0.5), cell) for index, (arm, cell) in enumerate(competing)]
    return HypervolumeStrip(x_scale, top, top + STRIP_ROW * len(rows), rows, named)


@dataclass(frozen=True)
class CostPlot:
    """Quality against cost: (arm, x, y, height of the label in pixels) of each point, with spreads as bars."""

    x: Column
    y: Column
    x_scale: Scale
    y_scale: Scale
    points: list[tuple[Arm, Cell, Cell, float]]


def cost_plot(arms: Iterable[Arm], x: Column, y: Column) -> CostPlot:
    """Lay out the arms that have finite means of both columns, from the top down."""
    points = [(arm, arm.column_cell(x), arm.column_cell(y)) for arm in arms]
    points = [(arm, a, b) for arm, a, b in points if math.isfinite(a.mean) and math.isfinite(b.mean)]
    x_scale = scale([0.0, *(end for _, cell, _ in points for end in spread_bar(cell))], SIDE, WIDTH - 20)
    y_scale = scale([end for _, _, cell in points for end in spread_bar(cell)], HEIGHT - BOTTOM, 16)
    points.sort(key=lambda point: y_scale(point[2].mean))
    heights = separate_labels([y_scale(cell.mean) - 7 for _, _, cell in points], y_scale.start)
    return CostPlot(x, y, x_scale, y_scale, [(*point, height) for point, height in zip(points, heights, strict=True)])


def spread_bar(cell: Cell) -> Point:
    """Return (mean - spread, mean + spread), the ends of a cell's bar."""
    return cell.mean - (cell.spread or 0.0), cell.mean + (cell.spread or 0.0)


WIDTH_INCHES, ROW_INCHES = 11.6, 4.2
DASHES = {
    "front dash1": (0, (4, 2)), "front dash2": (0, (4, 2, 1, 2)), "front dash3": (0, (2, 2)), "front flat": (0, (1, 3)),
}  # fmt: skip


def comparison_png(record: StudyRecord) -> bytes:
    """Return the content of comparison.png: curves by epoch, hypervolumes, quality against cost."""
    layout, study_arms = layout_of(record), arms(record)
    charts = arm_charts(record, study_arms, layout.curves)
    panels: list[Callable[[Axes], None]] = [partial(_draw_chart, chart) for chart in charts.values()]
    panels.append(partial(_draw_strip, hypervolume_strip(study_arms)))
    if layout.cost:
        panels.append(partial(_draw_cost, cost_plot(study_arms, *layout.cost)))
    rows = math.ceil(len(panels) / 2)
    figure = new_figure(WIDTH_INCHES, ROW_INCHES * rows)
    grid = figure.add_gridspec(rows, 2)
    for index, draw in enumerate(panels):
        alone = index % 2 == 0 and index == len(panels) - 1
        draw(figure.add_subplot(grid[index // 2, :] if alone else grid[index // 2, index % 2]))
    return png_bytes(figure)


def _draw_chart(chart: Chart, plot: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for line in chart.lines:
        for segment in line.segments:
            plot.plot(*zip(*segment, strict=True), color=line.color, **_stroke(line))
        if line.label:
            plot.scatter(*line.end, s=22, color=line.color, edgecolors="white", zorder=5)
    for height, line in chart.labels:
        at = (chart.x_scale.high * 1.03, chart.y_scale.back(height))
        plot.annotate(
            escape_dollars(line.label), at, color=line.color, fontsize=8.5, va="center", annotation_clip=False
        )
    for name, height, label in chart.references:
        plot.axhline(chart.y_scale.back(height), color=INK, linewidth=1, linestyle=(0, (1, 3)), alpha=0.6)
        at = (chart.x_scale.high * 0.01, chart.y_scale.back(label))
        plot.annotate(name, at, color=INK, fontsize=8.5, fontweight="bold")
    style_axes(plot, chart.label)
    plot.set_xlim(chart.x_scale.low, chart.x_scale.high * 1.02)
    plot.set_ylim(chart.y_scale.low, chart.y_scale.high)
    ticks = plot.xaxis.get_major_locator()
    if isinstance(ticks, MaxNLocator):
        ticks.set_params(integer=True)
    plot.set_xlabel("epoch", color=INK)


def _stroke(line: Line) -> dict[str, Any]:
    """Return the keyword arguments of matplotlib's `plot` for a line's look."""
    if line.css == "seed":
        return {"linewidth": 0.9, "alpha": 0.3}
    return {"linewidth": 1.9, "linestyle": DASHES.get(line.css, "-")}


def _draw_strip(strip: HypervolumeStrip, plot: Axes) -> None:
    for arm, height, cell in strip.rows:
        at = [height] * len(cell.known)
        marker = ARM_MARKERS[arm.symbol]
        plot.scatter(cell.known, at, s=30, color=arm.color, alpha=0.55, linewidths=0, marker=marker)
        plot.scatter([cell.mean], [height], s=190, marker="|", color=arm.color, linewidths=2.2)
    for arm, height, mean in strip.references:
        plot.axvline(mean, color=arm.color, linewidth=1.3, linestyle=(0, (1, 2)))
        plot.annotate(
            escape_dollars(arm.name), (mean, height), (4, 0), textcoords="offset points", color=INK, fontsize=8.5
        )
    style_axes(plot, "hypervolume by arm: seeds, mean")
    plot.set_xlim(strip.x_scale.low, strip.x_scale.high)
    plot.set_ylim(strip.bottom, 0)
    plot.set_yticks([height for _, height, _ in strip.rows], [escape_dollars(arm.name) for arm, _, _ in strip.rows])
    for label, (arm, _, _) in zip(plot.get_yticklabels(), strip.rows, strict=True):
        label.set_color(arm.color)
    plot.set_xlabel("hypervolume (higher is better)", color=INK)


def _draw_cost(cost: CostPlot, plot: Axes) -> None:
    for arm, x, y, label in cost.points:
        plot.errorbar(
            x.mean, y.mean, xerr=x.spread or 0.0, yerr=y.spread or 0.0,
            color=arm.color, marker=ARM_MARKERS[arm.symbol], markersize=6, linewidth=1.1,
        )  # fmt: skip
        at = (cost.x_scale.back(cost.x_scale(x.mean) + 14), cost.y_scale.back(label))
        arrow = {"arrowstyle": "-", "color": arm.color, "alpha": 0.6}
        plot.annotate(
            escape_dollars(arm.name), (x.mean, y.mean), at, arrowprops=arrow, color=arm.color, fontsize=8.5, va="center"
        )
    style_axes(plot, f"{cost.y.label} against cost")
    plot.set_xlim(cost.x_scale.low, cost.x_scale.high)
    plot.set_ylim(cost.y_scale.low, cost.y_scale.high)
    plot.set_xlabel(cost.x.label, color=SOFT)
