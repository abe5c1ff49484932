"""A trial in the interactive figures: its mark, its line and its tooltip.

A figure is plotly's `data` and `layout` as plain values. Every point of a trial has its number in `customdata`, by
which the page links figures and tables; colors are names of the page's own, such as `--accent`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import format_duration, format_number, format_setting
from lethe.reporting.trial_views import (
    KIND_LABELS,
    TrialKind,
    aliases_by_trial,
    best_first,
    trial_kind,
    varying_parameters,
)

MARKERS: dict[TrialKind, dict[str, Any]] = {
    "front": {"symbol": "circle", "size": 12, "color": "--accent", "line": {"color": "--card", "width": 1.5}},
    "beaten": {"symbol": "circle", "size": 8, "color": "--faint", "line": {"color": "--card", "width": 1}},
    "infeasible": {"symbol": "circle-open", "size": 8, "color": "--faint", "line": {"width": 1.5}},
    "reference": {"symbol": "cross-thin-open", "size": 9, "color": "--faint", "line": {"width": 2}},
    "stopped": {"symbol": "line-ew-open", "size": 9, "color": "--faint", "line": {"width": 2}},
    "failed": {"symbol": "x-thin-open", "size": 9, "color": "--bad", "line": {"width": 2}},
}
MOST_LINES = 200  # of single trials in one figure
TOOLTIP_PARAMETERS = 8


def tooltip(record: StudyRecord, trial: TrialRecord) -> str:
    """Return what a point says of its trial, as plotly's markup: scores, the parameters that vary, time."""
    names = aliases_by_trial(record).get(trial.number, [])
    verdict = KIND_LABELS[trial_kind(trial)] if trial.verdict == "complete" else trial.verdict.replace("_", " ")
    lines = [f"<b>Trial {trial.number}{''.join(f' · {name}' for name in names)}</b>", verdict]
    goals = (f"{g.metric} {format_number(trial.metrics.get(g.metric))}" for g in record.objectives)
    lines.append(escape(", ".join(goals)))
    labels = varying_parameters(record)
    settings = [
        f"{label.replace('_', ' ')} {format_setting(trial.params[key])}"
        for key, label in labels.items()
        if trial.params.get(key) is not None
    ]
    lines += map(escape, settings[:TOOLTIP_PARAMETERS])
    lines += ["…"] if len(settings) > TOOLTIP_PARAMETERS else []
    if trial.ended > trial.began > 0:
        lines.append(format_duration(trial.ended - trial.began))
    return "<br>".join(lines)


def scatter(name: str, trials: Sequence[TrialRecord], xs: Iterable[Any], ys: Iterable[Any], **more: Any) -> Figure:
    """Return a trace with a point per trial, or, for one trial, with all its points."""
    x, y = list(xs), list(ys)
    numbers = [trial.number for trial in trials] * (len(x) if len(trials) == 1 else 1)
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "customdata": numbers, **more}


def trial_line(
    record: StudyRecord, trial: TrialRecord, xs: list[Any], ys: list[Any], text: str, interim: Collection[Any] = ()
) -> Figure:
    """Return a trial's line, strong for members of the front, with hollow points where x is in `interim`."""
    knee = "knee" in aliases_by_trial(record).get(trial.number, [])
    color, width = {"front": ("--accent", 2.0), "failed": ("--bad", 1.0)}.get(trial_kind(trial), ("--faint", 1.0))
    line = {"color": "--knee" if knee else color, "width": 2.6 if knee else width}
    hollow = {"symbol": ["circle-open" if x in interim else "circle" for x in xs]} if interim else {}
    return scatter(
        f"trial {trial.number}", [trial], xs, ys, mode="lines+markers", line=line, hovertext=[text] * len(xs),
        hoverinfo="text", showlegend=False,
        marker={"size": 4 if width == 1 else 6, **hollow},
        opacity=1 if width > 1 else 0.55,
    )  # fmt: skip


def worst_first(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the best `MOST_LINES` trials, the worst of them first: what is drawn last is on top."""
    return best_first(trials)[:MOST_LINES][::-1]


def level_line(axis: str, value: float, color: str) -> Figure:
    """Return a dotted line across the whole figure at a value of one axis."""
    across = "y" if axis == "x" else "x"
    ends = {f"{axis}0": value, f"{axis}1": value, f"{across}0": 0, f"{across}1": 1, f"{across}ref": "paper"}
    return {"type": "line", "layer": "below", "line": {"color": color, "width": 1.5, "dash": "dot"}, **ends}
