"""Metrics by epoch, one line per trial or arm: they show whether a trial was still moving when its budget ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord, is_interim
from lethe.reporting.scales import Scale, scale
from lethe.reporting.trial_views import KIND_LABELS, aliases_by_trial, describe_direction, metric_value, trial_kind

WIDTH, HEIGHT = 430, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 58, 16, 40

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve in data coordinates, as segments: it is broken where a value is not finite.

    `css` are classes; `label` stands beside the line's end, which then has a dot; `color` replaces the classes' own.
    `trial`: the number of the trial that it shows, None where it shows several.
    """

    name: str
    css: str
    segments: list[list[Point]]
    label: str = ""
    color: str = ""
    trial: int | None = None

    @property
    def end(self) -> Point:
        """The last point."""
        return self.segments[-1][-1]


@dataclass(frozen=True)
class Chart:
    """Lines in data coordinates; `x_scale` and `y_scale` turn them into pixels.

    `labels`: the height in pixels of each line's label. `references` (start model, oracle): name, height of the line
    and height of its label in pixels. `floor` is in pixels, `epochs` are the ticks of the x axis.
    """

    label: str
    x_scale: Scale
    y_scale: Scale
    lines: list[Line]
    labels: list[tuple[float, Line]]
    references: list[tuple[str, float, float]]
    floor: float | None
    epochs: list[tuple[float, str]]


def objective_charts(record: StudyRecord) -> dict[str, Chart]:
    """Return a chart by objective, of those that any trial reported, with a line per trial."""
    charts = {goal.metric: _objective_chart(record, goal) for goal in record.objectives}
    return {metric: chart for metric, chart in charts.items() if chart.lines}


def _objective_chart(record: StudyRecord, goal: ObjectiveRecord) -> Chart:
    kinds = list(KIND_LABELS)
    references = reference_values(record, goal.metric)
    worst_first = sorted(record.trials, key=lambda trial: -kinds.index(trial_kind(trial)))
    start = (0.0, references.get("start", math.nan))
    lines = [
        _trial_line(record, trial, [start, *points])
        for trial in worst_first
        if (points := metric_by_epoch(trial, goal.metric))
    ]
    return lay_out_chart(f"{goal.metric} ({describe_direction(goal)})", lines, references, floor=goal.floor)


def _trial_line(record: StudyRecord, trial: TrialRecord, points: list[Point]) -> Line:
    kind = trial_kind(trial)
    knee = "knee" in aliases_by_trial(record).get(trial.number, [])
    css = f"{kind}{' is-knee' if knee else ''}"
    label = f"{trial.number}{' knee' if knee else ''}" if kind == "front" else ""
    return Line(f"trial {trial.number}, {KIND_LABELS[kind]}", css, finite_segments(points), label)


def metric_by_epoch(trial: TrialRecord, key: str, factor: float = 1.0) -> list[Point]:
    """Return (epoch, value times `factor`) of each of the trial's reports; the value is NaN where a report lacks it."""
    reports = enumerate(trial.series, start=1)
    points = [(float(report.get("epoch", index)), metric_value(report, key) * factor) for index, report in reports]
    return [(epoch, value) for epoch, value in points if math.isfinite(epoch)]


def interim_epochs(trial: TrialRecord) -> set[float]:
    """Return the epochs of the trial's interim evaluations."""
    return {float(report.get("epoch", index)) for index, report in enumerate(trial.series, 1) if is_interim(report)}


def finite_segments(points: Iterable[Point]) -> list[list[Point]]:
    """Split the points where a value is not finite; no segment is empty."""
    segments: list[list[Point]] = [[]]
    for epoch, value in points:
        if math.isfinite(value):
            segments[-1].append((epoch, value))
        elif segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


def reference_values(record: StudyRecord, key: str, factor: float = 1.0) -> dict[str, float]:
    """Return the metric `key` times `factor` of `start` and `oracle`, those that have a finite one."""
    models = {"start": record.start, "oracle": record.oracle}
    values = {name: metric_value(model.metrics, key) * factor for name, model in models.items() if model}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def lay_out_chart(
    label: str, lines: Sequence[Line], references: dict[str, float], *, floor: float | None = None, right: float = RIGHT
) -> Chart:
    """Return a chart of the lines that have points, with `right` pixels for the labels at their ends."""
    drawn = [line for line in lines if line.segments]
    points = [point for line in drawn for segment in line.segments for point in segment]
    x_scale = Scale(0.0, max([1.0, *(epoch for epoch, _ in points)]), LEFT, WIDTH - right)
    floors = [] if floor is None else [floor]
    y_scale = scale([*(value for _, value in points), *references.values(), *floors], HEIGHT - BOTTOM, TOP)
    heights = _reference_label_heights(references, y_scale)
    return Chart(
        label,
        x_scale,
        y_scale,
        drawn,
        _end_labels(drawn, y_scale),
        [(name, y_scale(references[name]), height) for name, height in zip(references, heights, strict=True)],
        None if floor is None else y_scale(floor),
        x_scale.ticks(max(1, min(5, int(x_scale.high)))),  # whole epochs
    )


def _reference_label_heights(references: dict[str, float], y_scale: Scale) -> list[float]:
    """Put labels above their lines, below where they would be on each other."""
    heights = [y_scale(value) for value in references.values()]
    from_top = sorted(range(len(heights)), key=lambda index: heights[index])
    separated = separate_labels([heights[index] - 5 for index in from_top], y_scale.start, gap=16)
    placed = dict(zip(from_top, separated, strict=True))
    return [placed[index] for index in range(len(heights))]


def _end_labels(lines: Iterable[Line], y_scale: Scale) -> list[tuple[float, Line]]:
    """Return the labelled lines with the heights of their labels, from the top down."""
    labelled = sorted((line for line in lines if line.label), key=lambda line: y_scale(line.end[1]))
    heights = separate_labels([y_scale(line.end[1]) for line in labelled], y_scale.start)
    return list(zip(heights, labelled, strict=True))


def separate_labels(heights: Sequence[float], lowest: float, gap: float = 12.0) -> list[float]:
    """Move ascending heights of labels down where they are nearer than `gap`, and up again from `lowest`."""
    separated: list[float] = []
    for height in heights:
        separated.append(max(height, separated[-1] + gap) if separated else height)
    limit = max([lowest, *heights])
    for index in reversed(range(len(separated))):
        separated[index] = min(separated[index], limit)
        limit = separated[index] - gap
    return separated
