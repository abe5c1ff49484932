"""The Pareto front as a drawing: where every trial, the start model, the oracle and the floors lie.

`lay_out_front` works the layout out once; the pages draw it as SVG, `front_png` as a picture for slides and papers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import Arm, arms, arms_by_trial
from lethe.reporting.figure_style import (
    ACCENT,
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
from lethe.reporting.scales import Scale, format_number, format_setting, scale
from lethe.reporting.trial_views import (
    KIND_LABELS,
    TrialKind,
    aliases_by_trial,
    describe_direction,
    metric_value,
    trial_kind,
    varying_parameters,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 880, 500
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 22, 58

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One objective as a coordinate; with an empty `key` the trial's number, for studies of one objective."""

    key: str
    label: str
    lower_is_better: bool
    floor: float | None

    def coordinate(self, trial: TrialRecord) -> float:
        """Return where the trial lies on this axis, NaN without a value."""
        return metric_value(trial.metrics, self.key) if self.key else float(trial.number)


@dataclass(frozen=True)
class TrialMark:
    """A trial on the drawing: its place in pixels, its aliases, and the (label, value) lines of its tooltip."""

    trial: TrialRecord
    kind: TrialKind
    x: float
    y: float
    aliases: list[str]
    tooltip: list[tuple[str, str]]


@dataclass(frozen=True)
class FrontDrawing:
    """The layout that the pages and the picture draw. Points are data; `x_scale`, `y_scale` turn them into pixels.

    `missing`: trials without finite coordinates. `stairs`: the border of the front, empty unless there are two
    objectives. `counts`: marks by kind. In a comparison `arms` are those that have marks, `arm_of` the arm of every
    trial, and `references` the mean points of those arms that are drawn as lines.
    """

    x: Axis
    y: Axis
    x_scale: Scale
    y_scale: Scale
    marks: list[TrialMark]
    missing: list[TrialRecord]
    start: Point | None
    oracle: Point | None
    stairs: list[Point]
    counts: dict[TrialKind, int]
    arms: list[Arm]
    arm_of: dict[int, Arm]
    references: list[tuple[Arm, Point]]


def objective_axes(record: StudyRecord) -> tuple[Axis, Axis]:
    """Return the x and y axis: the first two objectives, or the trial's number and the only one."""
    axes = [
        Axis(goal.metric, f"{goal.metric} ({describe_direction(goal)})", goal.direction == "minimize", goal.floor)
        for goal in record.objectives[:2]
    ]
    if len(axes) == 1:
        axes.insert(0, Axis("", "trial", True, None))
    return axes[0], axes[1]


def lay_out_front(record: StudyRecord) -> FrontDrawing:
    """Return the drawing of a study; marks are ordered so that the front is drawn last, hence on top."""
    x, y = objective_axes(record)
    start = _model_point(x, y, record.start.metrics)
    oracle = _model_point(x, y, record.oracle.metrics) if record.oracle else None
    study_arms = arms(record)
    references = [(arm, point) for arm in study_arms if arm.reference and (point := _mean_point(x, y, arm))]
    drawn = [trial for trial in record.trials if trial_kind(trial) != "reference"]
    placed = [trial for trial in drawn if _is_finite((x.coordinate(trial), y.coordinate(trial)))]
    models = [point for point in (start, oracle, *(point for _, point in references)) if point]
    x_scale = scale(
        [*(x.coordinate(t) for t in placed), *(p[0] for p in models), *_floors(x)],
        LEFT,
        WIDTH - RIGHT,
    )
    y_scale = scale(
        [*(y.coordinate(t) for t in placed), *(p[1] for p in models), *_floors(y)],
        HEIGHT - BOTTOM,
        TOP,
    )
    kinds = list(KIND_LABELS)
    worst_first = sorted(placed, key=lambda trial: -kinds.index(trial_kind(trial)))
    labels = varying_parameters(record)
    marks = [
        _mark(record, trial, labels, x_scale(x.coordinate(trial)), y_scale(y.coordinate(trial)))
        for trial in worst_first
    ]
    return FrontDrawing(
        x,
        y,
        x_scale,
        y_scale,
        marks,
        [trial for trial in drawn if trial not in placed],
        start,
        oracle,
        _stairs(record, x, y, x_scale, y_scale),
        {kind: sum(mark.kind == kind for mark in marks) for kind in KIND_LABELS},
        [arm for arm in study_arms if not arm.reference],
        arms_by_trial(study_arms),
        references,
    )


def _mark(record: StudyRecord, trial: TrialRecord, labels: dict[str, str], x: float, y: float) -> TrialMark:
    goals = [(goal.metric, format_number(metric_value(trial.metrics, goal.metric))) for goal in record.objectives]
    settings = [(label, format_setting(trial.params[key])) for key, label in labels.items() if key in trial.params]
    costs: list[tuple[str, str]] = [
        (key, format_setting(trial.metrics[key])) for key in ("win_rate", "seconds") if key in trial.metrics
    ]
    aliases = aliases_by_trial(record).get(trial.number, [])
    return TrialMark(trial, trial_kind(trial), x, y, aliases, goals + settings + costs)


def _stairs(record: StudyRecord, x: Axis, y: Axis, x_scale: Scale, y_scale: Scale) -> list[Point]:
    """Return the border between the points that the front beats and the others, from floor to floor (without a floor:
    to the edge of the drawing). Empty unless there are two objectives and a front."""
    front = [trial for trial in record.trials if trial.on_front]
    points = sorted({(x.coordinate(t), y.coordinate(t)) for t in front}, reverse=not x.lower_is_better)
    points = [point for point in points if _is_finite(point)]
    if len(record.objectives) != 2 or not points:
        return []
    worst_x = x.floor if x.floor is not None else (x_scale.high if x.lower_is_better else x_scale.low)
    worst_y = y.floor if y.floor is not None else (y_scale.high if y.lower_is_better else y_scale.low)
    stairs: list[Point] = [(points[0][0], worst_y)]
    for index, (point_x, point_y) in enumerate(points):
        stairs.append((point_x, point_y))
        next_x = points[index + 1][0] if index + 1 < len(points) else worst_x
        stairs.append((next_x, point_y))
    return stairs


def _mean_point(x: Axis, y: Axis, arm: Arm) -> Point | None:
    return _model_point(x, y, {axis.key: arm.cell(axis.key).mean for axis in (x, y)})


def _model_point(x: Axis, y: Axis, metrics: dict[str, float]) -> Point | None:
    point = (metric_value(metrics, x.key), metric_value(metrics, y.key))
    return point if _is_finite(point) else None


def _is_finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _floors(axis: Axis) -> list[float]:
    return [] if axis.floor is None else [axis.floor]


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


def _draw(plot: Axes, drawing: FrontDrawing, record: StudyRecord) -> None:
    _draw_axes(plot, drawing, record)
    _draw_floors(plot, drawing)
    if drawing.stairs:
        xs, ys = [x for x, _ in drawing.stairs], [y for _, y in drawing.stairs]
        plot.fill([*xs, xs[-1]], [*ys, ys[0]], color=ACCENT, alpha=0.07, linewidth=0, zorder=1)
        plot.plot(xs, ys, color=ACCENT, linewidth=1.4, alpha=0.75, zorder=2)
    _draw_references(plot, drawing)
    _draw_marks(plot, drawing)
    for arm in drawing.arms:
        plot.scatter([], [], label=escape_dollars(arm.name), s=40, color=arm.color, marker=ARM_MARKERS[arm.symbol])
    for mark in drawing.marks:
        if mark.kind == "front":
            _label_front_member(plot, drawing, mark)
    for name, point, marker in (("start", drawing.start, "D"), ("oracle", drawing.oracle, "*")):
        if point:
            size = 130 if marker == "*" else 52
            plot.scatter(*point, marker=marker, s=size, color=INK, edgecolors="white", linewidths=1, zorder=7)
            right = drawing.x_scale(point[0]) > WIDTH / 2
            _annotate(plot, name, point, INK, (-10 if right else 10, -4), bold=True)
    if drawing.marks:
        key = plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5, frameon=False, fontsize=8.5)
        for entry in key.get_texts():
            entry.set_color(SOFT)


def _draw_references(plot: Axes, drawing: FrontDrawing) -> None:
    """Draw a line through the reference's value on each axis, with its name at one end."""
    for arm, (x, y) in drawing.references:
        style: dict[str, Any] = {"color": arm.color, "linewidth": 1.3, "linestyle": (0, (1, 2)), "zorder": 2}
        plot.axvline(x, **style)
        plot.axhline(y, **style)
        _annotate(plot, arm.name, (drawing.x_scale.high, y), INK, (-4, 4))


def _draw_marks(plot: Axes, drawing: FrontDrawing) -> None:
    for kind, label in KIND_LABELS.items():
        marks = [mark for mark in drawing.marks if mark.kind == kind]
        for mark in marks:
            style = KIND_STYLES[kind] | _arm_style(kind, drawing.arm_of.get(mark.trial.number))
            plot.scatter(drawing.x.coordinate(mark.trial), drawing.y.coordinate(mark.trial), **style)
        if marks:
            plot.scatter([], [], label=f"{label} ({len(marks)})", **KIND_STYLES[kind])


ARM_MARKERS = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D"}


def _arm_style(kind: TrialKind, arm: Arm | None) -> dict[str, Any]:
    """Return the arm's color in place of the kind's own accent, and its marker in place of circles; empty without."""
    if arm is None:
        return {}
    own = KIND_STYLES[kind]
    colors = {key: arm.color for key, value in own.items() if value in (ACCENT, FAINT)}
    return {**colors, **({"marker": ARM_MARKERS[arm.symbol]} if own.get("marker") == "o" else {})}


def _draw_axes(plot: Axes, drawing: FrontDrawing, record: StudyRecord) -> None:
    plot.set_xlim(drawing.x_scale.low, drawing.x_scale.high)
    plot.set_ylim(drawing.y_scale.low, drawing.y_scale.high)
    plot.set_xlabel(drawing.x.label, color=INK)
    plot.set_ylabel(drawing.y.label, color=INK)
    volume = "" if record.hypervolume is None else f"  ·  hypervolume {record.hypervolume:.3g}"
    style_axes(plot, f"{record.space}: {len(record.trials)} trials, {len(record.front)} on the front{volume}")


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


def _label_front_member(plot: Axes, drawing: FrontDrawing, mark: TrialMark) -> None:
    """Write the trial's number on the side where no trial is better, hence no line and no mark."""
    point = (drawing.x.coordinate(mark.trial), drawing.y.coordinate(mark.trial))
    left, up = drawing.x.lower_is_better and mark.x > 170, not drawing.y.lower_is_better
    if "knee" in mark.aliases:
        plot.scatter(*point, s=190, facecolors="none", edgecolors=KNEE, linewidths=1.8, zorder=5)
        offset = (-8 if left else 8, 8 if up else -14)
        _annotate(plot, f"knee · trial {mark.trial.number}", point, KNEE, offset, bold=True)
    else:
        _annotate(plot, str(mark.trial.number), point, SOFT, (-5 if left else 5, 5 if up else -12))


def _annotate(plot: Axes, text: str, point: Point, color: str, offset: Point, *, bold: bool = False) -> None:
    plot.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        horizontalalignment="right" if offset[0] < 0 else "left",
        color=color,
        fontsize=9,
        fontweight="bold" if bold else "normal",
        zorder=8,
    )
