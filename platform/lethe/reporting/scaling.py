"""A scaling study's report: sentences (also for the terminal), the page, the laws as log-log plots, and its tables."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import lethe
from lethe.records import Scalar, TrialRecord
from lethe.reporting.figure_style import ACCENT, FAINT, INK, KNEE, escape_dollars, new_figure, png_bytes, style_axes
from lethe.reporting.next_steps import NextStep
from lethe.reporting.report import template_environment
from lethe.reporting.scales import format_count, format_duration, format_magnitude, format_number, format_setting
from lethe.scaling_records import LawRecord, ParallelRecord, ScalingRecord, SearchRecord, TransferRecord
from lethe.storage.paths import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FARTHEST = 100  # times the largest size that was measured: how far a law is written out
WIDTH_INCHES, HEIGHT_INCHES, COLUMNS = 5.2, 3.9, 2


@dataclass(frozen=True)
class Tile:
    """One number at the top of a page, with its name and a note."""

    name: str
    number: str
    note: str


def write_scaling_report(record: ScalingRecord, folder: Path) -> Path:
    """Write report.html, scaling.png, points.csv and scaling.json into `folder`; return the path of report.html."""
    picture = laws_png(record)
    files: dict[str, str | bytes] = {
        "scaling.json": record.model_dump_json(indent=1),
        "points.csv": points_csv(record),
        "scaling.png": picture,
        "report.html": render_scaling_page(record, picture),
    }
    for name, content in files.items():
        atomic_write(folder / name, content if isinstance(content, bytes) else content.encode(errors="replace"))
    return folder / "report.html"


def describe_scaling(record: ScalingRecord) -> list[str]:
    """Return the findings, one or two sentences each: laws, more workers, quality, transfer; also what is missing."""
    findings = [*map(describe_law, record.laws), *map(describe_parallel, record.parallel)]
    findings += [*_describe_searches(record), *map(describe_transfer, record.transfer)]
    if not record.laws:
        findings.append("No law was fitted: too few sizes are complete.")
    if record.interrupted:
        findings.append("The study was interrupted; --resume goes on with it.")
    return findings


def describe_lead(record: ScalingRecord) -> str:
    """Return in one sentence how cost grows: the laws' exponents, and the efficiency of more workers."""
    laws = [
        f"{law.name} ({law.arm}) grows {_describe_growth(law)} {format_magnitude(min(law.x))} to"
        f" {format_magnitude(max(law.x))} {law.x_name}"
        for law in record.laws
    ]
    most = [
        f"{axis.kind} scaling reaches {axis.efficiency[-1]:.0%} efficiency with"
        f" {format_count(axis.workers[-1], 'worker')} (stage {axis.stage})"
        for axis in record.parallel
    ]
    sentences = "; ".join([*laws[:3], *most[:1]])
    return f"{sentences[0].upper()}{sentences[1:]}." if sentences else "No law was fitted: too few sizes are complete."


def _describe_growth(law: LawRecord) -> str:
    if law.form == "linear":
        return f"in proportion to {law.x_name}, from"
    return f"with exponent {law.exponent:.2f} (90 %: {law.exponent_low:.2f} to {law.exponent_high:.2f}), from"


def describe_scaling_facts(record: ScalingRecord) -> dict[str, str]:
    """Return the first screen's questions with their answers."""
    complete = sum(point.verdict == "complete" for point in record.points)
    searches = f"{len(record.searches)} search{'' if len(record.searches) == 1 else 'es'}"
    covered = sum(law.covered for law in record.laws)
    worst = max((abs(law.error) for law in record.laws), default=0.0)
    best = max(record.searches, key=lambda search: search.hypervolume, default=None)
    fit = f"{covered} of {format_count(len(record.laws), 'law')} predicted the largest size inside the 90 % interval;"
    fit += f" the largest error is {worst:.0%}."
    return {
        "What was done": f"{complete} of {format_count(len(record.points), 'point')} timed, and {searches}.",
        "What the quality is": "Not searched."
        if best is None
        else f"The largest hypervolume (volume between front and floors) is {best.hypervolume:.3f}, of {best.arm} at"
        f" {best.size}; {sum(s.reached for s in record.searches)} of {sum(len(s.trials) for s in record.searches)}"
        " trials reached the forget target.",
        "Is it enough": fit if record.laws else "No: a law needs more complete sizes.",
        "What it cost": f"{format_duration(record.ended - record.began)} of wall time.",
        "How far to trust it": f"On this machine's processors, up to {FARTHEST} times the largest size measured; plans"
        " for GPUs are by the memory model and published rates, and were not run."
        + (" The study was interrupted." if record.interrupted else ""),
    }


def scaling_steps() -> tuple[NextStep, ...]:
    """Return what to do next: plan a size for a GPU."""
    plan = "lethe scaling plan --model-params 7e9 --gpu-memory 80e9 --rate 989e12"
    return (NextStep("plan a model of 7B parameters on H100s", plan),)


def describe_law(law: LawRecord) -> str:
    """Return how the law grows, and how well it predicted the largest size."""
    unit = f" {law.unit}" if law.unit else ""
    plus = f" plus {format_setting(law.offset)}{unit}" if law.offset > 1e-6 * min(law.y) else ""
    spread = "" if law.form == "linear" else f" (90 %: {law.exponent_low:.2f} to {law.exponent_high:.2f})"
    guess = law.held_out
    interval = f"{format_number(guess.low)} to {format_number(guess.high)}"
    inside = "inside" if law.covered else "outside"
    return (
        f"{law.name.capitalize()}, {law.arm}: grows as {law.x_name}^{law.exponent:.2f}{spread}{plus}. Held out at"
        f" {guess.x:.3g}: predicted {format_number(guess.value)} ({interval}), measured"
        f" {format_number(law.measured)}{unit}, {law.error:+.0%}, {inside} the interval."
    )


def describe_parallel(axis: ParallelRecord) -> str:
    """Return the efficiency with the most workers, the serial share, and the farthest extrapolation."""
    workers, efficiency, serial = axis.workers[-1], axis.efficiency[-1], axis.serial
    far = axis.extrapolations[-1]
    return (
        f"{axis.kind.capitalize()} scaling, stage {axis.stage}: {workers} workers reach {efficiency:.0%} efficiency, a"
        f" serial share of {serial.value:.2f} ({serial.low:.2f} to {serial.high:.2f}); extrapolation to"
        f" {far.x:g} workers: {far.value:.1f} times one worker ({far.low:.1f} to {far.high:.1f})."
    )


def _describe_searches(record: ScalingRecord) -> Iterator[str]:
    for search in record.searches:
        reached = f"{search.reached} of {len(search.trials)} trials reached the forget target"
        steps = "" if search.steps_to_target is None else f", first after {search.steps_to_target:g} steps"
        wins = "" if search.win_rate is None else f"; median win rate {search.win_rate:.2f}"
        name = f"{search.size}, {search.arm}, {search.forget}"
        yield f"{name}: hypervolume {search.hypervolume:.3f}, {reached}{steps}{wins}."


def describe_transfer(transfer: TransferRecord) -> str:
    """Return whether searching small and moving the setting paid, against as much random search at the large size."""
    random = transfer.random_score
    worse = "it did worse than" if transfer.score < random.low else "no different from"
    verdict = "it did better than" if transfer.score > random.high else worse
    moved = ", ".join(f"{key} {format_setting(value)}" for key, value in transfer.scaled.items())
    along = f" (moved along a trend: {moved})" if moved else ""
    correlations = "; ".join(f"{pair} {value:+.2f}" for pair, value in transfer.rank_correlation.items())
    ranks = f" Rank correlation of equal settings' scores: {correlations}." if correlations else ""
    return (
        f"Transfer, {transfer.arm}: the setting found at {transfer.small}{along} scored {transfer.score:.3f}"
        f" at {transfer.large}, at the cost of {transfer.trials_for_the_same:.1f} trials there, whose best is"
        f" {random.value:.3f} on average ({random.low:.3f} to {random.high:.3f} for {random.x:g}):"
        f" {verdict} searching there.{ranks}"
    )


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


def render_scaling_page(record: ScalingRecord, picture: bytes) -> str:
    """Return report.html, which needs no other file; `picture` is the content of scaling.png."""
    templates = template_environment()
    templates.filters |= {"big": format_magnitude, "percent": format_percent}
    return templates.get_template("scaling.html.j2").render(
        record=record,
        version=lethe.__version__,
        lead=describe_lead(record),
        facts=describe_scaling_facts(record),
        steps=scaling_steps(),
        near=[(law, p) for law in record.laws for p in law.extrapolations if p.x <= FARTHEST * max(law.x)],
        findings=describe_scaling(record),
        tiles=scaling_tiles(record),
        picture=base64.b64encode(picture).decode(),
        points=[p for p in record.points if p.verdict == "complete"],
        failed=[p for p in record.points if p.verdict != "complete"],
        searches=[SearchRow.of(record, search) for search in record.searches],
        took=format_duration(record.ended - record.began),
    )


def scaling_tiles(record: ScalingRecord) -> list[Tile]:
    """Return the numbers at the top of the page."""
    covered = sum(law.covered for law in record.laws)
    tiles = [
        Tile(
            "Timed points",
            str(len(record.points)),
            f"{len(record.searches)} search{'' if len(record.searches) == 1 else 'es'} beside them",
        ),
        Tile("Held-out predictions", f"{covered} of {len(record.laws)}", "inside their 90 % interval"),
    ]
    if rate := record.machine.get("matrix_rate"):
        tiles.append(Tile("Matrix rate", f"{rate / 1e9:.0f} GFLOP/s", "one worker, measured beside the steps"))
    if busy := record.machine.get("busy"):
        tiles.append(Tile("CPU share of wall time", f"{busy:.0%}", "of single workers; others used the rest"))
    return tiles


@dataclass(frozen=True)
class SearchRow:
    """A row of the table of searches: a search with its chosen trial, None where it has none."""

    search: SearchRecord
    trial: TrialRecord | None

    @classmethod
    def of(cls, record: ScalingRecord, search: SearchRecord) -> SearchRow:
        """Find the chosen trial among the record's, which are numbered through the study."""
        return cls(search, next((t for t in record.trials if t.number == search.chosen), None))

    def param(self, key: str) -> Scalar:
        """Return the chosen trial's parameter `key`, None where it is missing."""
        return self.trial.params.get(key) if self.trial else None

    def metric(self, key: str) -> float | None:
        """Return the chosen trial's metric `key`, None where it is missing."""
        return self.trial.metrics.get(key) if self.trial else None


def points_csv(record: ScalingRecord) -> str:
    """Return points.csv: a line per timed point with its labels and every number."""
    labels = list(dict.fromkeys(key for p in record.points for key in p.params))
    metrics = list(dict.fromkeys(key for p in record.points for key in p.metrics))
    file = StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["number", "verdict", *labels, *metrics])
    for p in record.points:
        lines.writerow([p.number, p.verdict, *(p.params.get(k) for k in labels), *(p.metrics.get(k) for k in metrics)])
    return file.getvalue()


def format_percent(share: float | None) -> str:
    """Return a share as whole per cent, a dash for None."""
    return "–" if share is None else f"{share:.0%}".replace("-", "−")
