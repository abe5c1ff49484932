"""A scaling study's report: sentences (also for the terminal), the page and its tables."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import lethe
from lethe.records import Scalar, TrialRecord
from lethe.reporting.next_steps import NextStep
from lethe.reporting.opening import Opening
from lethe.reporting.page_scripts import page_scripts
from lethe.reporting.report import describe_date, template_environment
from lethe.reporting.scales import format_count, format_duration, format_magnitude, format_number, format_setting
from lethe.reporting.scaling_figures import laws_png, scaling_figures
from lethe.reporting.terms import NAMES, TERMS
from lethe.scaling_records import EVERY_WEIGHT, LawRecord, ParallelRecord, ScalingRecord, SearchRecord, TransferRecord
from lethe.storage.paths import atomic_write

FARTHEST = 100  # times the largest size that was measured: how far a law is written out
NO_LAW = "No law was fitted: too few sizes are complete."
PLAN = "scaling plan --model-params 7e9"


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
    findings = [*map(describe_law, record.laws), *filter(None, [describe_memory(record)])]
    findings += [*map(describe_parallel, record.parallel), *_describe_searches(record)]
    findings += map(describe_transfer, record.transfer)
    if not record.laws:
        findings.append(NO_LAW)
    if record.interrupted:
        findings.append("The study was interrupted; --resume goes on with it.")
    return findings


def scaling_opening(record: ScalingRecord) -> Opening:
    """Return the first screen: how a step's time grows, and what was done, won and cost."""
    by_name: dict[str, list[LawRecord]] = {}
    for law in record.laws:
        by_name.setdefault(law.name, []).append(law)
    sentences = [_describe_growth(laws) for laws in by_name.values()] or [
        "No law was fitted: too few sizes are complete."
    ]
    most = [
        f"{axis.kind.capitalize()} scaling, ZeRO stage {axis.stage}: {axis.efficiency[-1]:.0%} efficiency with"
        f" {format_count(axis.workers[-1], 'worker')}."
        for axis in record.parallel
    ]
    held = sum(law.covered for law in record.laws)
    kept = f"; {held} of {format_count(len(record.laws), 'law')} predicted the largest size." if record.laws else "."
    sentence = sentences[0].removesuffix(".") + kept
    return Opening(None, sentence, " ".join([describe_memory(record), *most[:1]]).strip(), None, _facts(record))


def describe_memory(record: ScalingRecord) -> str:
    """Return how far the memory model is from what the largest size held, and from any point; empty without points."""
    keys = ("parameters", "step_tensors_mb", "predicted_step_mb")
    complete = [point.metrics for point in record.points if point.verdict == "complete"]
    held = [tuple(m[key] for key in keys) for m in complete if "predicted_step_mb" in m]
    if not held:
        return ""
    size, measured, predicted = max(held)
    farthest = max((model / found - 1 for _, found, model in held), key=abs)
    return (
        f"A step at {format_magnitude(size)} parameters holds {format_number(measured)} MiB beyond weights and"
        f" optimizer states, by the memory model {format_number(predicted)}; it is at most {abs(farthest):.0%} from any"
        f" of {format_count(len(held), 'point')}."
    )


def _describe_growth(laws: Sequence[LawRecord]) -> str:
    """Return how one law grows with each arm: `Step time grows in proportion to parameters with Sophia and AdamW.`"""
    arms: dict[str, list[str]] = {}
    for law in laws:
        power = f"{law.exponent:.2f}"
        growth = f"in proportion to {law.x_name}" if power == "1.00" else f"as {law.x_name}^{power}"
        arms.setdefault(growth, []).append(NAMES.get(law.arm, law.arm))
    clauses = [f"{growth} with {' and '.join(names)}" for growth, names in arms.items()]
    return f"{laws[0].name.capitalize()} grows {', '.join(clauses)}."


def _facts(record: ScalingRecord) -> dict[str, str]:
    """Return the first screen's questions with their answers."""
    complete = sum(point.verdict == "complete" for point in record.points)
    sizes = sorted({point.metrics["parameters"] for point in record.points if "parameters" in point.metrics})
    span = f" from {format_magnitude(sizes[0])} to {format_magnitude(sizes[-1])} parameters" if sizes else ""
    covered = sum(law.covered for law in record.laws)
    worst = max((abs(law.error) for law in record.laws), default=0.0)
    best = max(record.searches, key=lambda search: search.hypervolume, default=None)
    quality = [
        f"The best setting of {transfer.small}, run at {transfer.large}, has hypervolume {transfer.score:.3f}, a random"
        f" search there {transfer.random_score.value:.3f}: {_verdict_on(transfer)} searching there."
        for transfer in record.transfer
    ]
    if best:
        reached, trials = sum(s.reached for s in record.searches), sum(len(s.trials) for s in record.searches)
        name = NAMES.get(best.arm, best.arm)
        quality.insert(0, f"{name} at {best.size} has the largest hypervolume, {best.hypervolume:.3f}.")
        quality.append(f"{reached} of {trials} trials reached the forget target.")
    whether = "Yes" if covered == len(record.laws) else "Partly" if covered else "No"
    laws = format_count(len(record.laws), "law")
    fit = f"{whether}, to plan larger models: {covered} of {laws} predicted the largest size inside the 90 % interval;"
    fit += f" the largest error is {worst:.0%}."
    busy = record.machine.get("busy")
    shared = f" Single workers had {busy:.0%} of their wall time on a CPU." if busy is not None else ""
    interrupted = " The study was interrupted." if record.interrupted else ""
    searches = f"{len(record.searches)} search{'' if len(record.searches) == 1 else 'es'}"
    return {
        "What was done": f"{complete} of {format_count(len(record.points), 'point')} timed at {len(sizes)} sizes{span};"
        f" {searches}.",
        "What won": " ".join(quality) or "Quality was not searched.",
        "Is it enough": fit if record.laws else "No: a law needs more complete sizes.",
        "What it cost": f"{format_duration(record.ended - record.began)} of wall time.",
        **({"What larger studies cost": describe_study_costs(record)} if record.studies else {}),
        "How far to trust it": f"For this machine's processors, and at most {FARTHEST} times the largest size; plans"
        f" for GPUs are by the memory model and published rates, and were not run.{shared}{interrupted}",
    }


def describe_study_costs(record: ScalingRecord) -> str:
    """Return the GPU hours of the studies on paper that train every weight."""
    found = [
        f"{cost.model} {cost.low:.2g} to {cost.high:.2g}" for cost in record.studies if cost.trained == EVERY_WEIGHT
    ]
    return f"In hours of one {record.studies[0].gpu}, on paper: {', '.join(found)} (Plans, part by part)."


def scaling_steps(record: ScalingRecord, call: str = "lethe ") -> tuple[NextStep, ...]:
    """Return what to do next: go on, look again, plan a size for a GPU. `call`: the text before a command's name."""
    small = "--gpu-memory 24e9 --quantisation nf4 --lora-rank 16"
    resume = [NextStep("go on where it stopped", f"{call}scaling {record.study['name']} --resume")]
    return (
        *(resume if record.interrupted else []),
        NextStep("plan a model of 7B parameters on H100s", f"{call}{PLAN} --gpu-memory 80e9 --rate 989e12"),
        NextStep(
            "plan it for 24 GB, in 4 bits with LoRA",
            f"{call}{PLAN} {small}",
        ),
        NextStep("look at it again", f"{call}show {record.id}"),
    )


def describe_law(law: LawRecord) -> str:
    """Return how the law grows, and how well it predicted the largest size."""
    unit = f" {law.unit}" if law.unit else ""
    plus = f" plus {format_setting(law.offset)}{unit}" if law.offset > 1e-6 * min(law.y) else ""
    spread = "" if law.form == "linear" else f" (90 %: {law.exponent_low:.2f} to {law.exponent_high:.2f})"
    guess = law.held_out
    interval = f"{format_number(guess.low)} to {format_number(guess.high)}"
    inside, error = "inside" if law.covered else "outside", f"{law.error:+.0%}".replace("-", "−")
    return (
        f"{law.name.capitalize()}, {law.arm}: grows as {law.x_name}^{law.exponent:.2f}{spread}{plus}. Held out at"
        f" {format_magnitude(guess.x)}: predicted {format_number(guess.value)} ({interval}), measured"
        f" {format_number(law.measured)}{unit}, {error}, {inside} the interval."
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
    scaled = {key.rpartition(".")[2].replace("_", " "): value for key, value in transfer.scaled.items()}
    moved = ", ".join(f"{key} {format_setting(value)}" for key, value in scaled.items())
    along = f" (moved along a trend: {moved})" if moved else ""
    correlations = "; ".join(f"{pair} {value:+.2f}" for pair, value in transfer.rank_correlation.items())
    ranks = f" Rank correlation of equal settings' scores: {correlations}." if correlations else ""
    return (
        f"Transfer, {transfer.arm}: the setting found at {transfer.small}{along} scored {transfer.score:.3f}"
        f" at {transfer.large}, at the cost of {transfer.trials_for_the_same:.1f} trials there, whose best is"
        f" {random.value:.3f} on average ({random.low:.3f} to {random.high:.3f} for {random.x:g}):"
        f" {_verdict_on(transfer)} searching there.{ranks}"
    )


def _verdict_on(transfer: TransferRecord) -> str:
    """Return whether moving the setting did better than, worse than, or no different from random search."""
    if transfer.random_score.low <= transfer.score <= transfer.random_score.high:
        return "no different from"
    return "it did better than" if transfer.score > transfer.random_score.high else "it did worse than"


def render_scaling_page(record: ScalingRecord, picture: bytes) -> str:
    """Return report.html, which needs no other file; `picture` is the content of scaling.png."""
    templates = template_environment()
    templates.filters |= {"big": format_magnitude, "percent": format_percent}
    figures = scaling_figures(record)
    return templates.get_template("scaling.html.j2").render(
        record=record,
        version=lethe.__version__,
        opening=scaling_opening(record),
        steps=scaling_steps(record),
        when=describe_date(record.began),
        figures=figures,
        scripts=page_scripts(("tables", "scaling"), figures),
        terms=TERMS,
        near=[(law, p) for law in record.laws for p in law.extrapolations if p.x <= FARTHEST * max(law.x)],
        findings=describe_scaling(record),
        picture=base64.b64encode(picture).decode(),
        points=[p for p in record.points if p.verdict == "complete"],
        failed=[p for p in record.points if p.verdict != "complete"],
        searches=[SearchRow.of(record, search) for search in record.searches],
        sections=_sections(record),
        plan=f"lethe {PLAN} --gpu-memory 80e9",
    )


def _sections(record: ScalingRecord) -> dict[str, str]:
    """Return the names of the page's sections by their ids, for its navigation."""
    there = {
        "next": ("What next", True),
        "found": ("Findings", True),
        "laws": ("Laws", bool(record.laws or record.parallel)),
        "costs": ("Cost of a step", bool(record.points)),
        "workers": ("More workers", bool(record.parallel)),
        "quality": ("Quality", bool(record.searches)),
        "plans": ("Plans", bool(record.plans)),
        "where": ("Files", True),
    }
    return {section: name for section, (name, shown) in there.items() if shown}


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
