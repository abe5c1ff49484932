"""Laws as log-log plots: points with intervals, the fit with its band, the held-out point beside its prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lethe.reporting.picture import ACCENT, FAINT, INK, KNEE, blank, plain, png, style
from lethe.reporting.scales import short
from lethe.scaling.records import LawRecord, ParallelRecord, ScalingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, HIGH, COLUMNS = 5.2, 3.9, 2


def laws_png(record: ScalingRecord) -> bytes:
    """All laws, then strong and weak scaling; an empty picture says that there was nothing to draw."""
    drawings = [*record.laws, *record.parallel]
    rows = max(1, -(-len(drawings) // COLUMNS))
    figure = blank(WIDE * COLUMNS, HIGH * rows)
    for place, drawing in enumerate(drawings, 1):
        plot = figure.add_subplot(rows, COLUMNS, place)
        _law(plot, drawing) if isinstance(drawing, LawRecord) else _parallel(plot, drawing)
    if not drawings:
        style(figure.add_subplot(), "no law: too few points are complete")
    return png(figure)


def _law(plot: Axes, law: LawRecord) -> None:
    from matplotlib.ticker import NullFormatter

    plot.set_xscale("log")
    plot.set_yscale("log")
    xs = [point.x for point in law.curve]
    lows, highs = [p.low for p in law.curve], [p.high for p in law.curve]
    plot.fill_between(xs, lows, highs, color=ACCENT, alpha=0.12, linewidth=0)
    plot.plot(xs, [p.value for p in law.curve], color=ACCENT, linewidth=1.4, label=f"fit without the largest ({law.form})")
    kept = [i for i, x in enumerate(law.x) if x != law.held_out.x]
    bars = [[law.y[i] - law.low[i] for i in kept], [law.high[i] - law.y[i] for i in kept]]
    xs, ys = [law.x[i] for i in kept], [law.y[i] for i in kept]
    plot.errorbar(xs, ys, bars, fmt="o", color=INK, markersize=5, label="measured")
    plot.scatter([law.held_out.x], [law.measured], marker="D", color=KNEE, s=46, zorder=5, label="held out, measured")
    plot.scatter([law.held_out.x], [law.held_out.value], marker="x", color=ACCENT, s=46, zorder=6, label="predicted")
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_minor_formatter(NullFormatter())
    plot.set_xlabel(law.x_name, color=INK)
    plot.set_ylabel(", ".join(dict.fromkeys(filter(None, (law.y_name, law.unit)))), color=INK)
    plot.legend(frameon=False, fontsize=8)
    style(plot, f"{law.name}, {law.arm}: held-out error {law.error:+.0%}")
    _around(plot, law)


def _around(plot: Axes, law: LawRecord) -> None:
    """A wide band must not flatten what was measured."""
    values = [*law.y, law.held_out.value]
    plot.set_ylim(min(values) / 3, max(values) * 5)


def _parallel(plot: Axes, found: ParallelRecord) -> None:
    workers = [*found.workers, *(int(p.x) for p in found.extrapolations)]
    plot.set_xscale("log", base=2)
    plot.set_yscale("log", base=2)
    plot.plot(workers, workers, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="ideal")
    speeds = [w * e for w, e in zip(found.workers, found.efficiency, strict=True)]
    plot.plot(found.workers, speeds, "o-", color=INK, label="measured")
    far = found.extrapolations
    plot.errorbar(
        [p.x for p in far], [p.value for p in far], [[p.value - p.low for p in far], [p.high - p.value for p in far]],
        fmt="x", color=ACCENT, label="extrapolation",
    )  # fmt: skip
    plot.set_xlabel("workers", color=INK)
    plot.set_ylabel("rows per second, over one worker's", color=INK)
    plot.legend(frameon=False, fontsize=8)
    style(plot, plain(f"{found.kind} scaling, stage {found.stage}: serial share {short(found.serial.value)}"))
