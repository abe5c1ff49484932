"""Colors and helpers that all pictures share. Figures are made without pyplot, which keeps every one of them alive."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, FAINT, GRID = "#1d2433", "#667085", "#98a2b3", "#e7e9ef"
ACCENT, KNEE, BAD = "#1558c0", "#b23a08", "#b02121"
# Shapes of an arm's points, as plotly and matplotlib call them.
ARM_MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "cross": "P", "pentagon": "p", "hexagon": "h",
}  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of `width` times `height` inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(width, height), dpi=170, layout=layout, facecolor="white")


def png_bytes(figure: Figure) -> bytes:
    """Draw the figure and return the content of its PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = BytesIO()
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]  # matplotlib leaves it unannotated
    return file.getvalue()


def style_axes(plot: Axes, title: str) -> None:
    """Give the axes a title and a light grid, and take its box away."""
    plot.set_title(escape_dollars(title), loc="left", color=INK, fontsize=11.5, fontweight="bold", pad=12)
    plot.grid(color=GRID, linewidth=0.8, zorder=0)
    plot.set_axisbelow(True)
    plot.tick_params(colors=SOFT, length=0, labelsize=9)
    for side in plot.spines.values():
        side.set_visible(False)


def escape_dollars(text: str) -> str:
    """Escape the dollars of `text`, which matplotlib reads as mathematics."""
    return text.replace("$", r"\$")
