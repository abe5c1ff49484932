"""Parameters against objectives: parallel coordinates, and one parameter at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import format_setting
from lethe.reporting.trial_traces import MARKERS, scatter, trial_line, worst_first
from lethe.reporting.trial_views import KIND_LABELS, metric_value, trial_kind, varying_parameters


def _is_log(record: StudyRecord, key: str, values: list[float]) -> bool:
    """Tell whether a logarithmic axis shows a parameter better: it was searched on one, or its positive values span
    more than one power of ten."""
    searched = record.study.get("space", {}).get(key, {})
    positive = bool(values) and min(values) > 0
    return positive and (bool(searched.get("log")) or max(values) / min(values) >= 20)


def _numbers(values: Iterable[Scalar]) -> list[float] | None:
    """Return the values where all are numbers, else None: then they are choices."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, str | bool) for value in known):
        return None
    return [float(value) for value in known]


def parallel_figure(record: StudyRecord, keys: Sequence[str], texts: dict[int, str]) -> Figure:
    """Return parallel coordinates: a line per trial through its parameters `keys` and its objectives.

    Each axis runs from its least value, at 0, to its greatest, at 1. Where a trial has no such parameter, its line has
    a gap.
    """
    labels = {key: label.replace("_", " ") for key, label in varying_parameters(record).items() if key in keys}
    columns: list[tuple[str, str, list[Any]]] = [
        (key, label, [trial.params.get(key) for trial in record.trials]) for key, label in labels.items()
    ]
    columns += [
        (goal.metric, goal.metric, [_known(metric_value(trial.metrics, goal.metric)) for trial in record.trials])
        for goal in record.objectives
    ]
    axes = [_unit_axis(record, key, values) for key, _, values in columns]
    heights = {trial.number: [heights[at] for heights, _ in axes] for at, trial in enumerate(record.trials)}
    ticks = [
        {"x": place, "y": height, "text": escape(text), "showarrow": False, "xanchor": "left", "xshift": 5,
         "font": {"size": 11, "color": "--ink"}, "bgcolor": "--card", "opacity": 0.85}
        for place, (_, marks) in enumerate(axes)
        for height, text in marks
    ]  # fmt: skip
    lines = [
        trial_line(record, trial, list(range(len(columns))), heights[trial.number], texts[trial.number])
        for trial in worst_first(record.trials)
    ]
    names = [label.replace(" ", "<br>") for _, label, _ in columns]
    shown = {"tickvals": list(range(len(columns))), "ticktext": names, "range": [-0.25, len(columns) - 0.4]}
    return {
        "data": lines,
        "layout": {
            "height": 380,
            "showlegend": False,
            "xaxis": {**shown, "side": "top", "gridcolor": "--faint"},
            "yaxis": {"visible": False, "range": [-0.07, 1.07]},
            "annotations": ticks,
            "margin": {"l": 8, "r": 30, "t": 56, "b": 10},
        },
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unit_axis(record: StudyRecord, key: str, values: list[Any]) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Return each value's height in [0, 1], None for a missing one, and (height, label) of the axis's marks."""
    numbers = _numbers(values)
    if numbers is None:
        choices = sorted({str(value) for value in values if value is not None})
        place = {choice: index / max(1, len(choices) - 1) for index, choice in enumerate(choices)}
        return [None if v is None else place[str(v)] for v in values], [(at, name) for name, at in place.items()]
    if not numbers:
        return [None for _ in values], []
    log = _is_log(record, key, numbers)
    low, high = (math.log10(end) if log else end for end in (min(numbers), max(numbers)))
    width = high - low or 1.0

    def height(value: Any) -> float:
        return ((math.log10(value) if log else float(value)) - low) / width

    middle = 10 ** ((low + high) / 2) if log else (low + high) / 2
    ends = dict.fromkeys((min(numbers), middle, max(numbers)))
    return [None if v is None else height(v) for v in values], [(height(e), format_setting(e)) for e in ends]


def slice_figure(record: StudyRecord, key: str, texts: dict[int, str]) -> Figure:
    """Return every objective against one parameter, one above the other; trials without the parameter are left out."""
    trials = [trial for trial in record.trials if trial.params.get(key) is not None]
    values = [trial.params[key] for trial in trials]
    numbers = _numbers(values)
    axis = (
        {"type": "category"}
        if numbers is None
        else {"type": "log"}
        if _is_log(record, key, numbers)
        else {"type": "linear"}
    )
    traces = [
        _slice_trace(goal.metric, row, [t for t in trials if trial_kind(t) == kind], key, texts)
        for row, goal in enumerate(record.objectives, start=1)
        for kind in reversed(KIND_LABELS)
        if any(trial_kind(trial) == kind for trial in trials)
    ]
    rows = len(record.objectives)
    heights = {
        f"yaxis{row}" if row > 1 else "yaxis": {
            "domain": [1 - row / rows + (0.07 if row < rows else 0), 1 - (row - 1) / rows],
            "title": {"text": goal.metric},
            "nticks": 4,
        }
        for row, goal in enumerate(record.objectives, start=1)
    }
    label = varying_parameters(record)[key].replace("_", " ")
    title = {"text": f"{label} (log scale)" if axis["type"] == "log" else label}
    shared = {"title": title, "anchor": "y" if rows == 1 else f"y{rows}", "nticks": 6, **axis}
    if axis["type"] == "log":
        shared["dtick"] = 1
    return {
        "data": traces,
        "layout": {"height": 90 + 120 * rows, "showlegend": False, "xaxis": shared, "margin": {"t": 8}, **heights},
    }


def _slice_trace(metric: str, row: int, trials: list[TrialRecord], key: str, texts: dict[int, str]) -> Figure:
    values = [trial.params[key] for trial in trials]
    return scatter(
        KIND_LABELS[trial_kind(trials[0])],
        trials,
        [str(value) if isinstance(value, bool) else value for value in values],
        [_known(metric_value(trial.metrics, metric)) for trial in trials],
        yaxis="y" if row == 1 else f"y{row}",
        marker=MARKERS[trial_kind(trials[0])] | {"size": 9},
        hovertext=[texts[trial.number] for trial in trials],
        hoverinfo="text",
    )
