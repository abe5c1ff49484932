"""The comparison as a PNG, for slides and papers: curves by epoch, the hypervolumes, quality against cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import arms
from lethe.reporting.comparison.curves import Cost, Strip, arm_charts, cost, strip
from lethe.reporting.comparison.layouts import layout_of
from lethe.reporting.lines import Chart, Line
from lethe.reporting.picture import INK, SOFT, blank, plain, png, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ROW = 11.6, 4.2  # inches
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
    figure = blank(WIDTH, ROW * rows)
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
