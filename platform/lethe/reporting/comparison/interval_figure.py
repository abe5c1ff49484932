"""The picture of a claim: for every pair and budget the mean difference with its interval, a panel for each score. It
is drawn as SVG and by plotly on the page, and all claims in one picture by `verdicts_png`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lethe.reporting.comparison.claims import Claim, Finding
from lethe.reporting.comparison.scores import Score
from lethe.reporting.comparison.statistics import SAME
from lethe.reporting.figure_style import ARM_MARKERS, INK, SOFT, escape_dollars, new_figure, png_bytes, style_axes
from lethe.reporting.page_scripts import Figure
from lethe.reporting.scales import Scale, format_number, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, TOP, ROW, GAP, BETWEEN = 880, 24, 14, 9, 26
BUDGET_WIDTH = 52
INCHES, INCHES_A_PIXEL = 11.6, 0.0135
POOLED_LABEL = "mean over pairs"


@dataclass(frozen=True)
class IntervalRow:
    """A finding at a height in pixels. `label`: the pair's arms, on the first of its rows; `decided`: one is better."""

    finding: Finding
    y: float
    label: str
    color: str
    symbol: str

    @property
    def budget(self) -> str:
        """The budget in a word."""
        return self.finding.budget.short

    @property
    def decided(self) -> bool:
        """Whether one arm is better, so that the mark is filled."""
        return self.finding.verdict in ("better", "worse")

    @property
    def drawn(self) -> bool:
        """Whether there is a seed, so that there is a difference to draw."""
        return bool(self.finding.differences.seeds)

    @property
    def ends(self) -> tuple[float, float]:
        """The interval's ends: the mean itself where there is no interval."""
        evidence, mean = self.finding.evidence, self.finding.differences.mean
        return (evidence.low, evidence.high) if evidence else (mean, mean)

    @property
    def words(self) -> str:
        """The finding, for a tooltip."""
        low, high = self.ends
        name = self.finding.pair.name if self.finding.pair else POOLED_LABEL
        mean = format_number(self.finding.differences.mean)
        span = f"{format_number(low)} to {format_number(high)}"
        return f"{name}, {self.finding.budget.label}: {mean} ({span}), {self.finding.verdict or 'no verdict'}"


@dataclass(frozen=True)
class IntervalPanel:
    """The differences by one score."""

    score: Score
    x_scale: Scale
    rows: list[IntervalRow]

    @property
    def title(self) -> str:
        """The axis's title, with an arrow towards better differences."""
        return f"{self.score.name} {'↑' if self.score.better == 'maximize' else '↓'}"


@dataclass(frozen=True)
class IntervalFigure:
    """Panels side by side over the same rows; `left` and `bottom` in pixels bound them."""

    left: float
    bottom: float
    panels: list[IntervalPanel]


def interval_figure(claim: Claim) -> IntervalFigure:
    """Lay out the claim's findings: the pairs in their order, the mean over them last."""
    labels = [_label(finding) for finding in (*claim.findings, *claim.pooled)]
    left = 20 + 6.6 * max(map(len, labels)) + BUDGET_WIDTH
    width = (WIDTH - left - BETWEEN * (len(claim.scores) - 1) - 12) / len(claim.scores)
    panels = []
    bottom: float = TOP
    for number, score in enumerate(claim.scores):
        start = left + number * (width + BETWEEN)
        rows, bottom = _rows(claim, score)
        ends = [end for row in rows for end in row.ends] + [row.finding.differences.mean for row in rows]
        panels.append(IntervalPanel(score, scale([-SAME, SAME, *ends], start, start + width), rows))
    return IntervalFigure(left, bottom, panels)


def _rows(claim: Claim, score: Score) -> tuple[list[IntervalRow], float]:
    rows: list[IntervalRow] = []
    y: float = TOP
    for pair in (*claim.pairs, *[None] * bool(claim.pooled)):
        of_pair = [f for f in (*claim.findings, *claim.pooled) if f.pair == pair and f.score == score]
        for place, finding in enumerate(of_pair):
            color, symbol = (pair.other.color, pair.other.symbol) if pair else (INK, "circle")
            rows.append(IntervalRow(finding, y + ROW / 2, "" if place else _label(finding), color, symbol))
            y += ROW
        y += GAP
    return rows, y


def _label(finding: Finding) -> str:
    return f"{finding.pair.other.name} − {finding.pair.base.name}" if finding.pair else POOLED_LABEL


def interactive_intervals(figure: IntervalFigure) -> Figure:
    """Return the layout as an interactive figure."""
    traces: list[Figure] = []
    layout: Figure = {"height": 90 + figure.bottom * 1.25, "showlegend": False, "margin": {"t": 26}}
    rows = figure.panels[0].rows
    names = [f"{row.label} · {row.budget}" if row.label else row.budget for row in rows]
    places = [-row.y for row in rows]
    layout["yaxis"] = {
        "tickvals": places, "ticktext": names, "range": [-figure.bottom, -TOP / 2], "zeroline": False,
    }  # fmt: skip
    share = 1 / len(figure.panels)
    bands = []
    for number, panel in enumerate(figure.panels, 1):
        suffix = "" if number == 1 else str(number)
        domain = [(number - 1) * share + (0.02 if number > 1 else 0), number * share - 0.02]
        layout[f"xaxis{suffix}"] = {
            "title": {"text": panel.title}, "domain": domain, "zeroline": True, "tickangle": 0,
            "nticks": 6 // len(figure.panels) + 1,
            "range": [panel.x_scale.low, panel.x_scale.high],
        }  # fmt: skip
        bands.append(
            {
                "type": "rect", "xref": f"x{suffix}", "yref": "paper", "x0": -SAME, "x1": SAME, "y0": 0, "y1": 1,
                "fillcolor": "--faint", "opacity": 0.15, "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip
        traces += [_trace(row, f"x{suffix}") for row in panel.rows if row.drawn]
    return {"data": traces, "layout": layout | {"shapes": bands}}


def _trace(row: IntervalRow, axis: str) -> Figure:
    mean, (low, high) = row.finding.differences.mean, row.ends
    color = "--ink" if row.finding.pair is None else row.color
    return {
        "type": "scatter", "mode": "markers", "x": [mean], "y": [-row.y], "xaxis": axis, "yaxis": "y",
        "error_x": {
            "type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low],
            "color": color, "thickness": 1.4, "width": 0,
        },
        "marker": {"color": color, "size": 8, "symbol": row.symbol if row.decided else f"{row.symbol}-open"},
        "hovertext": [row.words], "hoverinfo": "text", "cliponaxis": False, "showlegend": False,
    }  # fmt: skip


def verdicts_png(claims: Sequence[Claim]) -> bytes:
    """Return the content of verdicts.png: a row of panels for each claim."""
    figures = [interval_figure(claim) for claim in claims]
    heights = [figure.bottom * INCHES_A_PIXEL + 1.0 for figure in figures]
    picture = new_figure(INCHES, sum(heights))
    grid = picture.add_gridspec(len(figures), len(figures[0].panels), height_ratios=heights)
    for row, (claim, figure) in enumerate(zip(claims, figures, strict=True)):
        for column, panel in enumerate(figure.panels):
            plot = picture.add_subplot(grid[row, column])
            _draw_panel(figure, panel, plot, claim.subject if column == 0 else "", names=column == 0)
    return png_bytes(picture)


def _draw_panel(figure: IntervalFigure, panel: IntervalPanel, plot: Axes, title: str, *, names: bool) -> None:
    plot.axvspan(-SAME, SAME, color=SOFT, alpha=0.1, linewidth=0)
    plot.axvline(0, color=INK, linewidth=0.9)
    for row in panel.rows:
        if not row.drawn:
            continue
        plot.plot(row.ends, [row.y] * 2, color=row.color, linewidth=1.5, alpha=0.75)
        plot.scatter(
            [row.finding.differences.mean], [row.y], s=26, marker=ARM_MARKERS[row.symbol], edgecolors=row.color,
            color=row.color if row.decided else "white", linewidths=1.1, zorder=3,
        )  # fmt: skip
    style_axes(plot, title)
    plot.set_xlim(panel.x_scale.low, panel.x_scale.high)
    plot.set_ylim(figure.bottom, TOP / 2)
    labels = [escape_dollars(f"{row.label} · {row.budget}" if row.label else row.budget) for row in panel.rows]
    plot.set_yticks([row.y for row in panel.rows], labels if names else [""] * len(labels))
    plot.grid(axis="y", visible=False)
    plot.set_xlabel(f"difference in {panel.title}", color=SOFT)
