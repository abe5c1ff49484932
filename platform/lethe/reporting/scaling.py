"""A scaling study in sentences: for the head of the report and for the terminal.

Laws as log-log plots: points with intervals, the fit with its band, the held-out point beside its prediction.

The page of a scaling study, its picture and its tables as files.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lethe
from lethe.records import TrialRecord
from lethe.reporting.front import ACCENT, FAINT, INK, KNEE, blank, plain, png, style
from lethe.reporting.report import Tile, environment
from lethe.reporting.scales import format_count, format_duration, format_number, format_setting
from lethe.scaling.records import LawRecord, ParallelRecord, ScalingRecord, SearchRecord, TransferRecord
from lethe.storage.paths import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def describe_scaling(record: ScalingRecord) -> list[str]:
    """What was found, one sentence or two each; what could not be found is said too."""
    found = [*map(describe_law, record.laws), *map(describe_parallel, record.parallel)]
    found += [*_quality(record), *map(describe_transfer, record.transfer)]
    if not record.laws:
        found.append("No law was fitted: too few sizes are complete.")
    if record.interrupted:
        found.append("The study was interrupted; --resume goes on with it.")
    return found


def describe_law(law: LawRecord) -> str:
    """Growth, then how the largest was predicted."""
    unit = f" {law.unit}" if law.unit else ""
    plus = f" plus {format_setting(law.offset)}{unit}" if law.offset > 1e-6 * min(law.y) else ""
    spread = "" if law.form == "linear" else f" (90 %: {law.exponent_low:.2f} to {law.exponent_high:.2f})"
    guess = law.held_out
    inside = "inside" if law.covered else "outside"
    return (
        f"{law.name.capitalize()}, {law.arm}: grows as {law.x_name}^{law.exponent:.2f}{spread}{plus}. Held out at"
        f" {guess.x:.3g}: predicted {format_number(guess.value)} ({format_number(guess.low)} to {format_number(guess.high)}), measured"
        f" {format_number(law.measured)}{unit}, {law.error:+.0%}, {inside} the interval."
    )


def describe_parallel(found: ParallelRecord) -> str:
    """Efficiency and the serial share."""
    workers, efficiency = found.workers[-1], found.efficiency[-1]
    far = found.extrapolations[-1]
    return (
        f"{found.kind.capitalize()} scaling, stage {found.stage}: {workers} workers reach {efficiency:.0%} efficiency, a"
        f" serial share of {found.serial.value:.2f} ({found.serial.low:.2f} to {found.serial.high:.2f}); extrapolation to"
        f" {far.x:g} workers: {far.value:.1f} times one worker ({far.low:.1f} to {far.high:.1f})."
    )


def _quality(record: ScalingRecord) -> Iterator[str]:
    for search in record.searches:
        reached = f"{search.reached} of {len(search.trials)} trials reached the forget target"
        steps = "" if search.steps_to_target is None else f", first after {search.steps_to_target:g} steps"
        wins = "" if search.win_rate is None else f"; median win rate {search.win_rate:.2f}"
        yield f"{search.size}, {search.arm}, {search.forget}: hypervolume {search.hypervolume:.3f}, {reached}{steps}{wins}."


def describe_transfer(found: TransferRecord) -> str:
    """Whether searching small and moving the setting paid."""
    random = found.random_score
    worse = "it did worse than" if found.score < random.low else "no different from"
    verdict = "it did better than" if found.score > random.high else worse
    moved = ", ".join(f"{key} {format_setting(value)}" for key, value in found.scaled.items())
    along = f" (moved along a trend: {moved})" if moved else ""
    equal = "; ".join(f"{pair} {value:+.2f}" for pair, value in found.rank_correlation.items())
    ranks = f" Rank correlation of equal settings' scores: {equal}." if equal else ""
    return (
        f"Transfer, {found.arm}: the setting found at {found.small}{along} scored {found.score:.3f} at {found.large}, at the"
        f" cost of {found.trials_for_the_same:.1f} trials there, whose best is {random.value:.3f} on average"
        f" ({random.low:.3f} to {random.high:.3f} for {random.x:g}): {verdict} searching there.{ranks}"
    )


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
    plot.plot(
        xs, [p.value for p in law.curve], color=ACCENT, linewidth=1.4, label=f"fit without the largest ({law.form})"
    )
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
    style(plot, plain(f"{found.kind} scaling, stage {found.stage}: serial share {format_number(found.serial.value)}"))


def write_scaling_report(record: ScalingRecord, folder: Path) -> Path:
    """report.html, scaling.png, points.csv and scaling.json in `folder`; the path of the first."""
    picture = laws_png(record)
    files: dict[str, str | bytes] = {
        "scaling.json": record.model_dump_json(indent=1),
        "points.csv": points_csv(record),
        "scaling.png": picture,
        "report.html": render(record, picture),
    }
    for name, content in files.items():
        atomic_write(folder / name, content if isinstance(content, bytes) else content.encode(errors="replace"))
    return folder / "report.html"


def render(record: ScalingRecord, picture: bytes) -> str:
    """One page that needs nothing else."""
    pages = environment()
    pages.filters |= {"big": big, "percent": percent}
    return pages.get_template("scaling.html.j2").render(
        record=record,
        version=lethe.__version__,
        said=describe_scaling(record),
        tiles=tiles(record),
        picture=base64.b64encode(picture).decode(),
        points=[p for p in record.points if p.verdict == "complete"],
        failed=[p for p in record.points if p.verdict != "complete"],
        searches=[PointRow.of(record, search) for search in record.searches],
        took=format_duration(record.ended - record.began),
    )


def tiles(record: ScalingRecord) -> list[Tile]:
    """The numbers at the top."""
    judged = record.laws
    inside = sum(law.covered for law in judged)
    found = [
        Tile("Timed points", str(len(record.points)), f"{format_count(len(record.searches), 'search')} beside them"),
        Tile("Held-out predictions", f"{inside} of {len(judged)}", "inside their 90 % interval"),
    ]
    if rate := record.machine.get("matrix_rate"):
        found.append(Tile("Matrix rate", f"{rate / 1e9:.0f} GFLOP/s", "one worker, measured beside the steps"))
    if busy := record.machine.get("busy"):
        found.append(Tile("CPU share of wall time", f"{busy:.0%}", "of single workers; others used the rest"))
    return found


@dataclass(frozen=True)
class PointRow:
    """A search with the trial that stands for it."""

    search: SearchRecord
    trial: TrialRecord | None

    @classmethod
    def of(cls, record: ScalingRecord, search: SearchRecord) -> PointRow:
        """Trials are numbered through the study."""
        return cls(search, next((t for t in record.trials if t.number == search.chosen), None))

    def param(self, key: str) -> Any:
        """Of the chosen trial."""
        return self.trial and self.trial.params.get(key)

    def metric(self, key: str) -> float | None:
        """Of the chosen trial."""
        return self.trial and self.trial.metrics.get(key)


def points_csv(record: ScalingRecord) -> str:
    """One row per timed point: labels, then every number."""
    labels = list(dict.fromkeys(key for p in record.points for key in p.params))
    metrics = list(dict.fromkeys(key for p in record.points for key in p.metrics))
    file = StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["number", "verdict", *labels, *metrics])
    for p in record.points:
        rows.writerow([p.number, p.verdict, *(p.params.get(k) for k in labels), *(p.metrics.get(k) for k in metrics)])
    return file.getvalue()


def big(value: float) -> str:
    """Parameters, tokens, seconds over many orders: 7 billion is 7B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return format_setting(value)


def percent(value: float | None) -> str:
    """Whole per cent."""
    return "–" if value is None else f"{value:.0%}".replace("-", "−")
