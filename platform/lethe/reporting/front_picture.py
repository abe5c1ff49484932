"""The Pareto front as pictures: one for slides and papers, and a small one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm
from lethe.reporting.figure_style import (
    ACCENT,
    ARM_MARKERS,
    BAD,
    FAINT,
    INK,
    KNEE,
    SOFT,
    escape_dollars,
    new_figure,
    png_bytes,
    style_axes,
)
from lethe.reporting.front import FrontDrawing, Point, TrialMark, lay_out_front
from lethe.reporting.labels import Frame, Side
from lethe.reporting.trial_views import KIND_LABELS, TrialKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAME = Frame(520, 275, 9.5)  # the plot's size in points
KNEE_TEXT = "knee · trial {}"

KIND_STYLES: dict[TrialKind, dict[str, Any]] = {  # keyword arguments of matplotlib's `scatter`
    "front": {"marker": "o", "s": 62, "color": ACCENT, "edgecolors": "white", "linewidths": 1.2, "zorder": 6},
    "beaten": {"marker": "o", "s": 34, "color": FAINT, "edgecolors": "white", "linewidths": 0.8, "zorder": 4},
    "infeasible": {"marker": "o", "s": 34, "facecolors": "white", "edgecolors": FAINT, "linewidths": 1.2, "zorder": 3},
    "stopped": {"marker": "_", "s": 60, "color": FAINT, "linewidths": 1.8, "zorder": 3},
    "failed": {"marker": "x", "s": 40, "color": BAD, "linewidths": 1.5, "zorder": 3},
}


def front_png(record: StudyRecord) -> bytes:
    """Return the content of front.png."""
    figure = new_figure(8.4, 5.2)
    _draw(figure.add_subplot(), lay_out_front(record), record)
    return png_bytes(figure)


def front_thumbnail(record: StudyRecord) -> bytes:
    """Return the content of front-small.png, 400 by 78 pixels: marks and border alone, for pages with little room."""
    from matplotlib.figure import Figure

    drawing = lay_out_front(record)
    figure = Figure(figsize=(4, 0.78), dpi=100, facecolor="white")
    plot = figure.add_axes((0.035, 0.17, 0.96, 0.82))
    _draw_limits(plot, drawing)
    plot.set_xlabel(drawing.x.key or "trial", fontsize=7, labelpad=1, color=INK)
    plot.set_ylabel(drawing.y.key, fontsize=7, labelpad=2, color=INK)
    plot.tick_params(length=0, labelbottom=False, labelleft=False)
    for name, line in plot.spines.items():
        line.set_visible(name in ("left", "bottom"))
        line.set_color(FAINT)
    _draw_stairs(plot, drawing)
    _draw_references(plot, drawing, named=False)
    _draw_marks(plot, drawing, 0.4)
    _draw_models(plot, drawing, 0.4)
    return png_bytes(figure)


def _draw(plot: Axes, drawing: FrontDrawing, record: StudyRecord) -> None:
    _draw_axes(plot, drawing, record)
    _draw_floors(plot, drawing)
    _draw_stairs(plot, drawing)
    _draw_references(plot, drawing)
    _draw_marks(plot, drawing)
    for arm in drawing.arms:
        plot.scatter([], [], label=escape_dollars(arm.name), s=40, color=arm.color, marker=ARM_MARKERS[arm.symbol])
    sides = drawing.label_sides([FRAME], KNEE_TEXT, reach=6)
    for mark in drawing.marks:
        if mark.kind == "front":
            _label_front_member(plot, drawing, mark, sides.get(mark.trial.number))
    _draw_models(plot, drawing)
    for name, point in (("start", drawing.start), ("oracle", drawing.oracle)):
        if point:
            _annotate(plot, name, point, INK, sides.get(name), 9, bold=True)
    if drawing.marks:
        key = plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5, frameon=False, fontsize=8.5)
        for entry in key.get_texts():
            entry.set_color(SOFT)


def _draw_stairs(plot: Axes, drawing: FrontDrawing) -> None:
    if drawing.stairs:
        xs, ys = [x for x, _ in drawing.stairs], [y for _, y in drawing.stairs]
        plot.fill([*xs, xs[-1]], [*ys, ys[0]], color=ACCENT, alpha=0.07, linewidth=0, zorder=1)
        plot.plot(xs, ys, color=ACCENT, linewidth=1.4, alpha=0.75, zorder=2)


def _draw_models(plot: Axes, drawing: FrontDrawing, size: float = 1) -> None:
    for point, marker, area in ((drawing.start, "D", 52), (drawing.oracle, "*", 130)):
        if point:
            plot.scatter(*point, marker=marker, s=size * area, color=INK, edgecolors="white", linewidths=1, zorder=7)


def _draw_references(plot: Axes, drawing: FrontDrawing, *, named: bool = True) -> None:
    """Draw a line through the reference's value on each axis, with its name at one end."""
    for arm, (x, y) in drawing.references:
        style: dict[str, Any] = {"color": arm.color, "linewidth": 1.3, "linestyle": (0, (1, 2)), "zorder": 2}
        plot.axvline(x, **style)
        plot.axhline(y, **style)
        if named:
            _annotate(plot, arm.name, (drawing.x_scale.high, y), INK, (-1, -1), 4)


def _draw_marks(plot: Axes, drawing: FrontDrawing, size: float = 1) -> None:
    """Draw every trial, with a ring around the knee; `size` is that of the marks' areas."""
    for kind, label in KIND_LABELS.items():
        marks = [mark for mark in drawing.marks if mark.kind == kind]
        for mark in marks:
            point = (drawing.x.coordinate(mark.trial), drawing.y.coordinate(mark.trial))
            area = {"s": size * KIND_STYLES[kind]["s"]}
            plot.scatter(*point, **KIND_STYLES[kind] | area | _arm_style(kind, drawing.arm_of.get(mark.trial.number)))
            if "knee" in mark.aliases:
                plot.scatter(*point, s=size * 190, facecolors="none", edgecolors=KNEE, linewidths=1.8, zorder=5)
        if marks:
            plot.scatter([], [], label=f"{label} ({len(marks)})", **KIND_STYLES[kind])


def _arm_style(kind: TrialKind, arm: Arm | None) -> dict[str, Any]:
    """Return the arm's color in place of the kind's own accent, and its marker in place of circles; empty without."""
    if arm is None:
        return {}
    own = KIND_STYLES[kind]
    colors = {key: arm.color for key, value in own.items() if value in (ACCENT, FAINT)}
    return {**colors, **({"marker": ARM_MARKERS[arm.symbol]} if own.get("marker") == "o" else {})}


def _draw_axes(plot: Axes, drawing: FrontDrawing, record: StudyRecord) -> None:
    _draw_limits(plot, drawing)
    plot.set_xlabel(drawing.x.label, color=INK)
    plot.set_ylabel(drawing.y.label, color=INK)
    volume = "" if record.hypervolume is None else f"  ·  hypervolume {record.hypervolume:.3g}"
    style_axes(plot, f"{record.space}: {len(record.trials)} trials, {len(record.front)} on the front{volume}")


def _draw_limits(plot: Axes, drawing: FrontDrawing) -> None:
    plot.set_xlim(drawing.x_scale.low, drawing.x_scale.high)
    plot.set_ylim(drawing.y_scale.low, drawing.y_scale.high)


def _draw_floors(plot: Axes, drawing: FrontDrawing) -> None:
    """Draw each floor as a line and shade the side where no trial can be on the front."""
    for axis, line, span, ends in (
        (drawing.x, plot.axvline, plot.axvspan, (drawing.x_scale.low, drawing.x_scale.high)),
        (drawing.y, plot.axhline, plot.axhspan, (drawing.y_scale.low, drawing.y_scale.high)),
    ):
        if axis.floor is not None:
            span(axis.floor, ends[1] if axis.lower_is_better else ends[0], color="#f3f4f7", zorder=0.5, linewidth=0)
            line(axis.floor, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if drawing.y.floor is not None:
        across = plot.get_yaxis_transform()
        plot.text(
            0.01, drawing.y.floor, "floor", transform=across, color=SOFT, fontsize=8.5, verticalalignment="bottom"
        )


def _label_front_member(plot: Axes, drawing: FrontDrawing, mark: TrialMark, side: Side | None) -> None:
    """Write the trial's number on this side of it."""
    point = (drawing.x.coordinate(mark.trial), drawing.y.coordinate(mark.trial))
    if "knee" in mark.aliases:
        _annotate(plot, KNEE_TEXT.format(mark.trial.number), point, KNEE, side, 11, bold=True)
    else:
        _annotate(plot, str(mark.trial.number), point, SOFT, side, 6)


def _annotate(
    plot: Axes, text: str, point: Point, color: str, side: Side | None, reach: float, *, bold: bool = False
) -> None:
    """Write `text` at a distance of `reach` points from `point`; nowhere without a side."""
    if side is None:
        return
    plot.annotate(
        text,
        point,
        (side[0] * reach, -side[1] * reach),
        textcoords="offset points",
        horizontalalignment={-1: "right", 0: "center", 1: "left"}[side[0]],
        verticalalignment={-1: "bottom", 0: "center", 1: "top"}[side[1]],
        color=color,
        fontsize=9,
        fontweight="bold" if bold else "normal",
        zorder=8,
    )
