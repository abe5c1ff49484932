"""A study over time: objectives by epoch, the hypervolume by trial, and what ran when."""

from __future__ import annotations

import math

import numpy as np

from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.curves import interim_epochs, metric_by_epoch, reference_values
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import format_number
from lethe.reporting.trial_traces import scatter, trial_line, worst_first
from lethe.reporting.trial_views import KIND_LABELS, describe_direction, metric_value, trial_kind
from lethe.reporting.worker_time import lanes


def epochs_figure(record: StudyRecord, goal: ObjectiveRecord, texts: dict[int, str]) -> Figure:
    """Return one objective by epoch, a line per trial from the start model on."""
    references = reference_values(record, goal.metric)
    traces = []
    for trial in worst_first(record.trials):
        points = metric_by_epoch(trial, goal.metric)
        if not points:
            continue
        points = [(0.0, references.get("start", math.nan)), *points]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        traces.append(trial_line(record, trial, xs, ys, texts[trial.number], interim_epochs(trial)))
    levels = {**references, **({"floor": goal.floor} if goal.floor is not None else {})}
    return {
        "data": traces,
        "layout": {
            "height": 300,
            "showlegend": False,
            "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": f"{goal.metric} ({describe_direction(goal)})"}},
            "shapes": [
                {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "layer": "below",
                 "line": {"color": "--faint", "width": 1, "dash": "dash" if name == "floor" else "dot"}}
                for name, y in levels.items()
            ],
            "annotations": [
                {
                    "text": name,
                    "xref": "paper",
                    "x": 1,
                    "y": y,
                    "xanchor": "right",
                    "yanchor": "bottom",
                    "showarrow": False,
                    "font": {"size": 11},
                }
                for name, y in _labels(traces, levels)
            ],
        },
    }  # fmt: skip


def _labels(traces: list[Figure], levels: dict[str, float]) -> list[tuple[str, float]]:
    """Return the names of horizontal lines with their heights; lines too near for two labels share one."""
    heights = [y for trace in traces for y in trace["y"] if math.isfinite(y)] + list(levels.values())
    labels: list[tuple[str, float]] = []
    for name, y in sorted(levels.items(), key=lambda level: level[1]):
        if labels and y - labels[-1][1] < 0.06 * (max(heights) - min(heights)):
            labels[-1] = (f"{labels[-1][0]}, {name}", y)
        else:
            labels.append((name, y))
    return labels


def hypervolumes(record: StudyRecord) -> list[tuple[TrialRecord, float]]:
    """Return the trials in the order in which they ended, each with the hypervolume of all trials up to it.

    Values are in the unit of `record.hypervolume`, which the last of them is. Empty where the front has no volume, or
    an objective no floor.
    """
    import moocore

    floors = [goal.floor for goal in record.objectives]
    if not record.hypervolume or any(floor is None for floor in floors):
        return []
    signs = np.array([1.0 if goal.direction == "maximize" else -1.0 for goal in record.objectives])
    base = signs * np.array(floors, dtype=float)
    ended = sorted(record.trials, key=lambda trial: (trial.ended, trial.number))
    volumes, points = [], np.empty((0, len(signs)))
    for trial in ended:
        gains = signs * [metric_value(trial.metrics, goal.metric) for goal in record.objectives] - base
        if trial.verdict == "complete" and np.isfinite(gains).all() and (gains > 0).all():
            points = np.vstack([points, gains])
        volume = moocore.hypervolume(points, ref=np.zeros(len(signs)), maximise=True) if len(points) else 0.0
        volumes.append(float(volume))
    if not volumes[-1]:
        return []
    # A study measures gains in units of its own, by which the volume is multiplied as a whole.
    return [(trial, volume * record.hypervolume / volumes[-1]) for trial, volume in zip(ended, volumes, strict=True)]


def hypervolume_figure(record: StudyRecord, texts: dict[int, str]) -> Figure | None:
    """Return the hypervolume after every trial; None where the front has none."""
    found = hypervolumes(record)
    if not found:
        return None
    trials = [trial for trial, _ in found]
    heights = [volume for _, volume in found]
    words = [f"{texts[trial.number]}<br><b>hypervolume so far {format_number(volume)}</b>" for trial, volume in found]
    line = {"color": "--accent", "width": 2, "shape": "hv"}
    path = scatter(
        "hypervolume", trials, range(1, len(found) + 1), heights, mode="lines+markers", line=line, hovertext=words,
        hoverinfo="text", marker={"size": 6}, cliponaxis=False,
    )  # fmt: skip
    axes = {
        "xaxis": {"title": {"text": "trials ended"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "hypervolume (higher is better)"}, "rangemode": "tozero"},
    }
    return {"data": [path], "layout": {"height": 300, "showlegend": False, **axes}}


def timeline_figure(record: StudyRecord, texts: dict[int, str]) -> Figure:
    """Return when each trial ran, in minutes since the first began; trials at one time lie above each other."""
    timed = [trial for trial in record.trials if trial.ended > trial.began > 0]
    rows = lanes([(trial.began, trial.ended) for trial in timed])
    first = min(trial.began for trial in timed)
    traces = []
    for trial, row in zip(timed, rows, strict=True):
        kind = trial_kind(trial)
        ends = [(trial.began - first) / 60, (trial.ended - first) / 60]
        steps = [ends[0], (ends[0] + ends[1]) / 2, ends[1]]  # a bar is pointed at by its points
        color = {"front": "--accent", "failed": "--bad"}.get(kind, "--faint")
        traces.append(
            scatter(
                KIND_LABELS[kind], [trial], steps, [row + 1] * 3, mode="lines", line={"color": color, "width": 14},
                hovertext=[texts[trial.number]] * 3, hoverinfo="text",
            )
        )  # fmt: skip
    count = max(rows) + 1
    return {
        "data": traces,
        "layout": {
            "height": 110 + 26 * count,
            "showlegend": False,
            "xaxis": {"title": {"text": "minutes since the first trial began"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "at once"}, "dtick": 1, "range": [0.4, count + 0.6]},
        },
    }
