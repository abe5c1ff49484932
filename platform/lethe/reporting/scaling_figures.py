"""The figures of a scaling study: laws on double logarithmic axes, more workers, quality by size; the first two also as
one picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lethe.reporting.comparison.arms import COLORS
from lethe.reporting.figure_style import ACCENT, FAINT, INK, KNEE, escape_dollars, new_figure, png_bytes, style_axes
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import format_magnitude, format_number
from lethe.reporting.terms import NAMES
from lethe.scaling_records import LawRecord, ParallelRecord, ScalingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, HEIGHT_INCHES, COLUMNS = 5.2, 3.9, 2
MARK_LINE = {"color": "--card", "width": 1.2}


def scaling_figures(record: ScalingRecord) -> dict[str, Figure]:
    """Return the interactive figures by name: `law-X` of every law X with its arms, `workers`, `quality`."""
    by_name: dict[str, list[LawRecord]] = {}
    for law in record.laws:
        by_name.setdefault(law.name, []).append(law)
    figures = {f"law-{name.replace(' ', '-')}": law_figure(laws) for name, laws in by_name.items()}
    if record.parallel:
        figures["workers"] = workers_figure(record.parallel)
    if record.searches:
        figures["quality"] = quality_figure(record)
    return figures


def law_figure(laws: Sequence[LawRecord]) -> Figure:
    """Return one law's measurements, fits and bands, a color per arm; the largest size, held out, is a diamond."""
    traces: list[Figure] = []
    for law, color in zip(laws, COLORS, strict=False):
        arm = NAMES.get(law.arm, law.arm)
        curve = [point for point in law.curve if min(point.value, point.low) > 0]
        xs = [point.x for point in curve]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "x": [*xs, *reversed(xs)], "hoverinfo": "skip", "showlegend": False,
                "y": [*(p.high for p in curve), *(p.low for p in reversed(curve))], "line": {"width": 0},
                "fill": "toself", "fillcolor": f"{color}22",
            }
        )  # fmt: skip
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": f"{arm}, fit without the largest ({law.form})", "x": xs,
                "y": [point.value for point in curve], "line": {"color": color, "width": 1.8}, "hoverinfo": "skip",
            }
        )  # fmt: skip
        held = [x == law.held_out.x for x in law.x]
        words = [
            f"<b>{arm}</b>, {format_magnitude(x)} {law.x_name}<br>measured {format_number(y)} {law.unit}"
            + (f"<br>predicted {format_number(law.held_out.value)}, held out" if out else "")
            for x, y, out in zip(law.x, law.y, held, strict=True)
        ]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": f"{arm}, measured", "x": law.x, "y": law.y,
                "error_y": _error_bars(law.y, law.low, law.high, color), "hovertext": words, "hoverinfo": "text",
                "marker": {
                    "color": color, "size": [12 if out else 8 for out in held], "line": MARK_LINE, "opacity": 1,
                    "symbol": ["diamond" if out else "circle" for out in held],
                },
            }
        )  # fmt: skip
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": f"{arm}, predicted for the largest",
                "x": [law.held_out.x], "y": [law.held_out.value], "showlegend": False, "hoverinfo": "skip",
                "marker": {"symbol": "x-thin-open", "size": 11, "color": color, "line": {"width": 2}},
            }
        )  # fmt: skip
    values = [y for law in laws for y in (*law.y, law.held_out.value)]  # a wide band would flatten them
    first = laws[0]
    unit = f", {first.unit}" if first.unit else ""
    return {
        "data": traces,
        "layout": {
            "height": 380,
            "xaxis": {"type": "log", "title": {"text": f"{first.x_name} (log scale)"}, "dtick": 1},
            "yaxis": {
                "type": "log", "title": {"text": f"{first.name}{unit} (log scale)"}, "dtick": 1,
                "range": [math.log10(min(values) / 2), math.log10(max(values) * 3)],
            },
        },
    }  # fmt: skip


def workers_figure(axes: Sequence[ParallelRecord]) -> Figure:
    """Return the speed over one worker by workers, with the ideal and what is extrapolated."""
    counts = sorted({*(n for axis in axes for n in axis.workers), *(p.x for axis in axes for p in axis.extrapolations)})
    traces: list[Figure] = [
        {
            "type": "scatter", "mode": "lines", "name": "ideal", "x": counts, "y": counts, "hoverinfo": "skip",
            "line": {"color": "--faint", "width": 1.2, "dash": "dash"},
        }
    ]  # fmt: skip
    for axis, color in zip(axes, COLORS, strict=False):
        name = f"{axis.kind} scaling, stage {axis.stage}"
        speeds = [count * share for count, share in zip(axis.workers, axis.efficiency, strict=True)]
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": axis.workers, "y": speeds,
                "line": {"color": color, "width": 2}, "marker": {"size": 8, "color": color},
                "hovertemplate": f"<b>{name}</b><br>%{{x}} workers: %{{y:.3~g}} times one<extra></extra>",
            }
        )  # fmt: skip
        far = axis.extrapolations
        values = [point.value for point in far]
        bars = _error_bars(values, [point.low for point in far], [point.high for point in far], color)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": f"{name}, extrapolation", "x": [point.x for point in far],
                "y": values, "error_y": bars, "showlegend": False,
                "marker": {"symbol": "x-thin-open", "size": 9, "color": color, "line": {"width": 2}},
                "hovertemplate": f"<b>{name}</b><br>%{{x}} workers: %{{y:.3~g}} times one, extrapolated<extra></extra>",
            }
        )  # fmt: skip
    ticks = {"tickvals": counts, "ticktext": [f"{count:g}" for count in counts]}
    return {
        "data": traces,
        "layout": {
            "height": 380,
            "xaxis": {"type": "log", "title": {"text": "workers (log scale)"}, **ticks},
            "yaxis": {"type": "log", "title": {"text": "rows per second, over one worker's (log scale)"}, **ticks},
        },
    }


def quality_figure(record: ScalingRecord) -> Figure:
    """Return the hypervolume of every search by its model's size, and the settings that were moved to the largest."""
    traces: list[Figure] = []
    arms = list(dict.fromkeys((search.arm, search.forget) for search in record.searches))
    for (arm, forget), color in zip(arms, COLORS, strict=False):
        found = sorted((s for s in record.searches if (s.arm, s.forget) == (arm, forget)), key=lambda s: s.parameters)
        name = f"{NAMES.get(arm, arm)}, {forget}"
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": [s.parameters for s in found],
                "y": [s.hypervolume for s in found], "line": {"color": color, "width": 2}, "marker": {"size": 9},
                "hovertemplate": f"<b>{name}</b><br>%{{x:.3~s}} parameters: %{{y:.3f}}<extra></extra>",
            }
        )  # fmt: skip
    sizes = {search.size: search.parameters for search in record.searches}
    moved = [transfer for transfer in record.transfer if transfer.large in sizes]
    if moved:
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "one setting moved from the smallest size",
                "x": [sizes[t.large] for t in moved], "y": [t.score for t in moved], "cliponaxis": False,
                "marker": {"symbol": "star", "size": 13, "color": "--ink"},
                "hovertemplate": "<b>moved setting</b><br>%{y:.3f}<extra></extra>",
            }
        )  # fmt: skip
    return {
        "data": traces,
        "layout": {
            "height": 380,
            "xaxis": {"type": "log", "title": {"text": "parameters (log scale)"}, "dtick": 1},
            "yaxis": {"title": {"text": "hypervolume (higher is better)"}, "rangemode": "tozero"},
        },
    }


def _error_bars(values: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str) -> dict[str, Any]:
    up = [high - value for value, high in zip(values, highs, strict=True)]
    down = [value - low for value, low in zip(values, lows, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "color": color,
        "thickness": 1.3,
        "width": 3,
    }


def laws_png(record: ScalingRecord) -> bytes:
    """Draw all laws, then strong and weak scaling; without either, an empty picture that says so."""
    count = len(record.laws) + len(record.parallel)
    rows = max(1, -(-count // COLUMNS))
    figure = new_figure(WIDTH_INCHES * COLUMNS, HEIGHT_INCHES * rows)
    for place, law in enumerate(record.laws, 1):
        _draw_law(figure.add_subplot(rows, COLUMNS, place), law)
    for place, axis in enumerate(record.parallel, 1 + len(record.laws)):
        _draw_parallel(figure.add_subplot(rows, COLUMNS, place), axis)
    if not count:
        style_axes(figure.add_subplot(), "no law: too few points are complete")
    return png_bytes(figure)


def _draw_law(plot: Axes, law: LawRecord) -> None:
    from matplotlib.ticker import NullFormatter

    plot.set_xscale("log")
    plot.set_yscale("log")
    curve_x = [point.x for point in law.curve]
    lows, highs = [point.low for point in law.curve], [point.high for point in law.curve]
    plot.fill_between(curve_x, lows, highs, color=ACCENT, alpha=0.12, linewidth=0)
    label = f"fit without the largest ({law.form})"
    plot.plot(curve_x, [point.value for point in law.curve], color=ACCENT, linewidth=1.4, label=label)
    fitted = [i for i, x in enumerate(law.x) if x != law.held_out.x]
    bars = [[law.y[i] - law.low[i] for i in fitted], [law.high[i] - law.y[i] for i in fitted]]
    xs, ys = [law.x[i] for i in fitted], [law.y[i] for i in fitted]
    plot.errorbar(xs, ys, bars, fmt="o", color=INK, markersize=5, label="measured")
    plot.scatter([law.held_out.x], [law.measured], marker="D", color=KNEE, s=46, zorder=5, label="held out, measured")
    plot.scatter([law.held_out.x], [law.held_out.value], marker="x", color=ACCENT, s=46, zorder=6, label="predicted")
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_minor_formatter(NullFormatter())
    plot.set_xlabel(law.x_name, color=INK)
    plot.set_ylabel(", ".join(dict.fromkeys(filter(None, (law.y_name, law.unit)))), color=INK)
    plot.legend(frameon=False, fontsize=8)
    style_axes(plot, f"{law.name}, {law.arm}: held-out error {law.error:+.0%}")
    # By the measurements, since a wide band would flatten them.
    values = [*law.y, law.held_out.value]
    plot.set_ylim(min(values) / 3, max(values) * 5)


def _draw_parallel(plot: Axes, axis: ParallelRecord) -> None:
    far = axis.extrapolations
    workers = [*axis.workers, *(int(point.x) for point in far)]
    plot.set_xscale("log", base=2)
    plot.set_yscale("log", base=2)
    plot.plot(workers, workers, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="ideal")
    speeds = [count * share for count, share in zip(axis.workers, axis.efficiency, strict=True)]
    plot.plot(axis.workers, speeds, "o-", color=INK, label="measured")
    plot.errorbar(
        [p.x for p in far], [p.value for p in far], [[p.value - p.low for p in far], [p.high - p.value for p in far]],
        fmt="x", color=ACCENT, label="extrapolation",
    )  # fmt: skip
    plot.set_xlabel("workers", color=INK)
    plot.set_ylabel("rows per second, over one worker's", color=INK)
    plot.legend(frameon=False, fontsize=8)
    title = f"{axis.kind} scaling, stage {axis.stage}: serial share {format_number(axis.serial.value)}"
    style_axes(plot, escape_dollars(title))
