"""The Pareto front as a drawing: where every trial, the start model, the oracle and the floors lie.

`lay_out_front` works the layout out once; the pages draw it as SVG, `front_picture` as a picture for slides and papers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import Arm, arms, arms_by_trial
from lethe.reporting.labels import Frame, Label, Side, place_labels
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

    @cached_property
    def sides(self) -> dict[int | str, Side]:
        """Where the labels of the SVG stand."""
        width, height = (abs(axis.stop - axis.start) for axis in (self.x_scale, self.y_scale))
        return self.label_sides([Frame(width, height)], "knee · trial {}")

    def label_sides(self, frames: Sequence[Frame], knee: str, reach: float = 8) -> dict[int | str, Side]:
        """Return the sides on which the labels of the front's members, by number, and of `start` and `oracle` stand in
        every frame; none where there is no room. `knee` is the knee's text, with its number in the place of {}."""

        def label(name: int | str, text: str, point: Point, by: float) -> Label:
            across, down = self.x_scale.share(point[0]), 1 - self.y_scale.share(point[1])
            return Label(name, text, across, down, by)

        points = {
            mark.trial.number: (self.x.coordinate(mark.trial), self.y.coordinate(mark.trial)) for mark in self.marks
        }
        front = [mark for mark in self.marks if mark.kind == "front"]
        labels = [
            label(n, knee.format(n), points[n], reach + 5) if is_knee else label(n, str(n), points[n], reach)
            for n, is_knee in sorted(
                ((mark.trial.number, "knee" in mark.aliases) for mark in front), key=lambda pair: not pair[1]
            )
        ]
        models = {"start": self.start, "oracle": self.oracle}
        labels[1:1] = [label(name, name, point, reach + 3) for name, point in models.items() if point]
        marks = [(one.x, one.y) for one in (label(n, "", point, 0) for n, point in points.items())]
        # The side where no trial is better, hence no line and no mark.
        first = (-1 if self.x.lower_is_better else 1, 1 if self.y.lower_is_better else -1)
        return place_labels(labels, marks, frames, first)


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
