"""The Pareto front as an interactive figure; `front.lay_out_front` works out what is where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import Arm
from lethe.reporting.front import FrontDrawing, lay_out_front
from lethe.reporting.labels import Frame, Side
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import format_number
from lethe.reporting.trial_traces import MARKERS, level_line, scatter
from lethe.reporting.trial_views import KIND_LABELS, TrialKind, aliases_by_trial

FRAMES = tuple(Frame(width, 300) for width in (280, 420, 560, 700))  # the plot in windows of 420 to 1600 pixels


def front_figure(record: StudyRecord, texts: dict[int, str]) -> Figure:
    """Return the front: a point per trial, the stairs down to the floors, start model and oracle. In a comparison the
    points are colored and shaped by arm, and references are lines."""
    drawing = lay_out_front(record)
    sides = drawing.label_sides(FRAMES, "{} knee")
    traces = []
    if drawing.stairs:
        xs, ys = [x for x, _ in drawing.stairs], [y for _, y in drawing.stairs]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "x": [*xs, xs[-1], xs[0]], "y": [*ys, ys[0], ys[0]],
                "fill": "toself", "fillcolor": "--wash", "line": {"color": "--accent", "width": 1.4},
                "hoverinfo": "skip", "showlegend": False,
            }
        )  # fmt: skip
    if drawing.arms:
        traces += [_arm_trace(drawing, arm, texts) for arm in drawing.arms]
        traces.append(_arm_labels(drawing, sides))
    else:
        for kind in reversed(KIND_LABELS):  # the front last, hence on top
            trials = [mark.trial for mark in drawing.marks if mark.kind == kind]
            if trials:
                traces.append(_front_trace(record, drawing, kind, trials, texts, sides))
    knee = [mark.trial for mark in drawing.marks if "knee" in mark.aliases]
    ring = {"symbol": "circle-open", "size": 22, "color": "--knee", "line": {"width": 2.2}}
    traces += [
        {
            "type": "scatter", "mode": "markers+text", "x": [drawing.x.coordinate(t)], "y": [drawing.y.coordinate(t)],
            "marker": ring, "hoverinfo": "skip", "name": "knee", "cliponaxis": False,
            **_texts({t.number: f"{t.number} knee"}, sides),
        }
        for t in knee
    ]  # fmt: skip
    for name, point, symbol in (("start", drawing.start, "diamond"), ("oracle", drawing.oracle, "star")):
        if point:
            words = f"<b>{name}{' model' if name == 'start' else ''}</b><br>{drawing.y.key} {format_number(point[1])}"
            traces.append(
                {
                    "type": "scatter", "mode": "markers+text", "x": [point[0]], "y": [point[1]], "name": name,
                    "showlegend": False, **_texts({name: name}, sides),
                    "marker": {"symbol": symbol, "size": 12, "color": "--ink"}, "hovertext": [words],
                    "hoverinfo": "text", "cliponaxis": False,
                }
            )  # fmt: skip
    return {"data": traces, "layout": _front_layout(drawing)}


def _front_trace(
    record: StudyRecord,
    drawing: FrontDrawing,
    kind: TrialKind,
    trials: list[TrialRecord],
    texts: dict[int, str],
    sides: Mapping[int | str, Side],
) -> Figure:
    aliases = aliases_by_trial(record)
    trace = scatter(
        f"{KIND_LABELS[kind]} ({len(trials)})",
        trials,
        (drawing.x.coordinate(trial) for trial in trials),
        (drawing.y.coordinate(trial) for trial in trials),
        marker=MARKERS[kind],
        hovertext=[texts[trial.number] for trial in trials],
        hoverinfo="text",
        cliponaxis=False,
    )
    if kind != "front":
        return trace
    labels = {t.number: "" if "knee" in aliases.get(t.number, []) else str(t.number) for t in trials}
    return trace | {"mode": "markers+text", **_texts(labels, sides)}


def _texts(labels: Mapping[Any, str], sides: Mapping[int | str, Side]) -> Figure:
    """Return what a trace needs for these labels by name: each on its side, none without one."""
    places = [sides.get(name) for name in labels]
    return {
        "text": [text if place else "" for text, place in zip(labels.values(), places, strict=True)],
        "textposition": [
            f"{('top', 'middle', 'bottom')[place[1] + 1]} {('left', 'center', 'right')[place[0] + 1]}"
            for place in (place or (0, -1) for place in places)
        ],
        "textfont": {"color": "--ink"},
    }


def _arm_trace(drawing: FrontDrawing, arm: Arm, texts: dict[int, str]) -> Figure:
    """Return an arm's points: in its color and shape, filled above the floors and large on the front."""
    marks = [mark for mark in drawing.marks if drawing.arm_of[mark.trial.number] is arm]
    marks.sort(key=lambda mark: list(KIND_LABELS).index(mark.kind))  # the legend shows the first
    styles = [MARKERS[mark.kind] for mark in marks]
    outlines = [arm.color if style["symbol"].endswith("-open") else "--card" for style in styles]
    trials = [mark.trial for mark in marks]
    return scatter(
        arm.name,
        trials,
        (drawing.x.coordinate(trial) for trial in trials),
        (drawing.y.coordinate(trial) for trial in trials),
        marker={
            "symbol": [style["symbol"].replace("circle", arm.symbol) for style in styles],
            "size": [style["size"] for style in styles],
            "color": arm.color,
            "opacity": 1,  # plotly draws sizes that differ translucent
            "line": {"color": outlines, "width": 1.5},
        },
        hovertext=[f"<b>{arm.name}</b><br>{texts[trial.number]}" for trial in trials],
        hoverinfo="text",
        cliponaxis=False,
    )


def _arm_labels(drawing: FrontDrawing, sides: Mapping[int | str, Side]) -> Figure:
    """Return the numbers of front members as a trace of their own, so that the legend shows arms alone."""
    trials = [mark.trial for mark in drawing.marks if mark.kind == "front" and "knee" not in mark.aliases]
    points = [(drawing.x.coordinate(trial), drawing.y.coordinate(trial)) for trial in trials]
    return {
        "type": "scatter", "mode": "markers+text", "x": [x for x, _ in points], "y": [y for _, y in points],
        "marker": {"size": 12, "opacity": 0}, "hoverinfo": "skip", "showlegend": False,
        **_texts({trial.number: str(trial.number) for trial in trials}, sides),
    }  # fmt: skip


def _front_layout(drawing: FrontDrawing) -> Figure:
    shapes: list[Figure] = []
    notes: list[Figure] = []
    for axis, name, across in ((drawing.x, "x", "y"), (drawing.y, "y", "x")):
        if axis.floor is None:
            continue
        line = {f"{name}0": axis.floor, f"{name}1": axis.floor, f"{across}0": 0, f"{across}1": 1}
        dash = {"color": "--faint", "width": 1, "dash": "dash"}
        shapes.append({"type": "line", **line, f"{across}ref": "paper", "line": dash, "layer": "below"})
        place = {name: axis.floor, across: 1 if name == "y" else 0.02, f"{across}ref": "paper"}
        anchors = {"xanchor": "right", "yanchor": "bottom"}
        notes.append(
            {"text": f"floor {format_number(axis.floor)}", "showarrow": False, "font": {"size": 11}, **place, **anchors}
        )
    for arm, (x, y) in drawing.references:
        shapes += [level_line("x", x, arm.color), level_line("y", y, arm.color)]
        beside: Figure = {"xref": "paper", "x": 1, "y": y, "xanchor": "right", "yanchor": "bottom"}
        notes.append({"text": arm.name, "showarrow": False, "font": {"size": 11, "color": "--ink"}, **beside})
    return {
        "height": 390 + 8 * len(drawing.arms),
        "xaxis": {"title": {"text": drawing.x.label}, "range": [drawing.x_scale.low, drawing.x_scale.high]},
        "yaxis": {"title": {"text": drawing.y.label}, "range": [drawing.y_scale.low, drawing.y_scale.high]},
        "shapes": shapes,
        "annotations": notes,
    }
