"""The drawings of `comparison.figures` as interactive figures: their points and seeds' lines belong to trials."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import HYPERVOLUME, Arm, arms, layout_of
from lethe.reporting.comparison.claims import claims
from lethe.reporting.comparison.figures import CostPlot, arm_charts, cost_plot, curve_columns, hypervolume_strip
from lethe.reporting.comparison.interval_figure import interactive_intervals, interval_figure
from lethe.reporting.curves import Chart, Line
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import format_number
from lethe.reporting.trial_traces import level_line

DASHES = {"dash1": "dash", "dash2": "dashdot", "dash3": "5px,5px", "flat": "dot"}  # by the last class of a line
FAINT_SEED = 0.3


def comparison_figures(record: StudyRecord) -> dict[str, Figure]:
    """Return the figures of a comparison by name: `arms-hypervolume`, `arms-cost`, `arms-X` of every metric X that is
    drawn by epoch, and `claim-N` of every claim, from 1; none for a plain study."""
    study_arms = arms(record)
    if not study_arms:
        return {}
    layout = layout_of(record)
    figures = {"arms-hypervolume": hypervolume_figure(study_arms)}
    charts = arm_charts(record, study_arms, curve_columns(record, layout))
    figures |= {f"arms-{key}": chart_figure(chart) for key, chart in charts.items()}
    if layout.cost and (cost := cost_plot(study_arms, *layout.cost)).points:
        figures["arms-cost"] = cost_figure(cost)
    for number, claim in enumerate(claims(record), 1):
        figures[f"claim-{number}"] = interactive_intervals(interval_figure(claim))
    return figures


def hypervolume_figure(arms: Sequence[Arm]) -> Figure:
    """Return a row per arm with a point per seed and a bar at the mean; references are vertical lines."""
    rows = [arm for arm in arms if not arm.reference]
    x_scale = hypervolume_strip(arms).x_scale
    traces: list[Figure] = []
    for arm in rows:
        seeds = [seed for seed in arm.seeds if seed.trials]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": arm.name, "showlegend": False, "cliponaxis": False,
                "x": [seed.hypervolume for seed in seeds], "y": [arm.name] * len(seeds), "hoverinfo": "text",
                "customdata": [seed.chosen.number if seed.chosen else None for seed in seeds],
                "hovertext": [f"<b>{arm.name}</b>, seed {s.seed}<br>{format_number(s.hypervolume)}" for s in seeds],
                "marker": {"color": arm.color, "symbol": arm.symbol, "size": 9, "opacity": 0.65},
            }
        )  # fmt: skip
        mean = arm.cell(HYPERVOLUME).mean
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": arm.name, "showlegend": False, "cliponaxis": False,
                "x": [mean], "y": [arm.name], "hoverinfo": "text",
                "hovertext": [f"<b>{arm.name}</b>, mean<br>{format_number(mean)}"],
                "marker": {"symbol": "line-ns-open", "size": 17, "color": arm.color, "line": {"width": 2.6}},
            }
        )  # fmt: skip
    levels = {arm.name: (arm.cell(HYPERVOLUME).mean, arm.color) for arm in arms if arm.reference}
    return {
        "data": traces,
        "layout": {
            "height": 110 + 24 * len(rows),
            "showlegend": False,
            "margin": {"t": 30},
            "xaxis": {"title": {"text": "hypervolume (higher is better)"}, "range": [x_scale.low, x_scale.high]},
            "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": [a.name for a in reversed(rows)]},
            "shapes": [level_line("x", value, color) for value, color in levels.values()],
            "annotations": [
                {
                    "text": name, "x": value, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False,
                    "font": {"size": 11, "color": "--ink"},
                }
                for name, (value, _) in levels.items()
            ],
        },
    }  # fmt: skip


def chart_figure(chart: Chart) -> Figure:
    """Return a chart by epoch: strong lines with names in the legend, faint ones without; references are level."""
    return {
        "data": [_line_trace(line) for line in chart.lines],
        "layout": {
            "height": 360,
            "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": chart.label}, "range": [chart.y_scale.low, chart.y_scale.high]},
            "shapes": [level_line("y", chart.y_scale.back(at), "--faint") for _, at, _ in chart.references],
            "annotations": [
                {
                    "text": name, "xref": "paper", "x": 1, "y": chart.y_scale.back(label), "xanchor": "right",
                    "yanchor": "bottom", "showarrow": False, "font": {"size": 11, "color": "--ink"},
                }
                for name, _, label in chart.references
            ],
        },
    }  # fmt: skip


def _line_trace(line: Line) -> Figure:
    points: list[tuple[float | None, float | None]] = []
    for segment in line.segments:
        points += [*segment, (None, None)]  # a gap
    strong, dash = bool(line.label), DASHES.get(line.css.split()[-1], "solid")
    trace: Figure = {
        "type": "scatter", "mode": "lines", "name": line.label, "showlegend": strong,
        "x": [x for x, _ in points], "y": [y for _, y in points], "opacity": 1 if strong else FAINT_SEED,
        "line": {"color": line.color, "width": 2.2 if strong else 1.2, "dash": dash},
        "hovertemplate": f"<b>{line.name}</b><br>epoch %{{x}}: %{{y:.3~g}}<extra></extra>",
    }  # fmt: skip
    return trace if line.trial is None else trace | {"customdata": [line.trial] * len(points)}


def cost_figure(cost: CostPlot) -> Figure:
    """Return quality against cost: a point per arm, with bars of the spread over seeds."""
    traces = []
    for arm, x, y, _ in cost.points:
        bars = {"color": arm.color, "thickness": 1.3, "width": 0}
        words = f"{cost.y.head} {format_number(y.mean)}<br>{cost.x.head} {format_number(x.mean)}"
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": arm.name, "x": [x.mean], "y": [y.mean],
                "error_x": {"type": "data", "array": [x.spread or 0], **bars},
                "error_y": {"type": "data", "array": [y.spread or 0], **bars},
                "marker": {"color": arm.color, "symbol": arm.symbol, "size": 10}, "cliponaxis": False,
                "hovertext": [f"<b>{arm.name}</b><br>{words}"], "hoverinfo": "text",
            }
        )  # fmt: skip
    axes = {
        "xaxis": {"title": {"text": cost.x.label}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": cost.y.label}},
    }
    return {"data": traces, "layout": {"height": 360, **axes}}
