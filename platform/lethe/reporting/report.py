"""The report's words and its rendering. Everything is escaped: answers come from models, reasons from libraries.

What a study leaves for people: pages, a picture and a table, each written whole or not at all.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lethe
from lethe.config.metrics import METRICS_OF
from lethe.errors import UserError
from lethe.records import StudyRecord, TrialRecord
from lethe.reporting import confirmation_and_audits, trial_views
from lethe.reporting.comparison import tables
from lethe.reporting.comparison.arms import arms, colors, legend
from lethe.reporting.comparison.figures import bar, comparison_png
from lethe.reporting.comparison.summary import comparison
from lethe.reporting.comparison.tables import comparison_csv
from lethe.reporting.curves import charts
from lethe.reporting.front import front, front_png
from lethe.reporting.scales import format_count, format_duration, format_number, format_setting
from lethe.reporting.trial_views import names
from lethe.storage.paths import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page."""

    what: str
    number: str
    note: str


def render(record: StudyRecord, *, store: str | None = None, model: str = "") -> dict[str, str]:
    """The two pages by file name. `store` and `model` say where the winners are registered, if they are."""
    values = _values(record) | {"store": store, "model": model}
    pages = environment()
    return {name: pages.get_template(f"{name}.j2").render(values) for name in ("report.html", "front.html")}


def environment() -> Environment:
    """Templates of this package with the filters that all pages use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("lethe.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    pages.filters |= {"short": format_number, "setting": format_setting, "words": _words, "seconds": _seconds}
    pages.filters |= {"indented": _json, "quoted": json.dumps}
    pages.globals |= {"groups": tables.groups, "mean": tables.mean, "spread": tables.spread, "each": tables.each}
    pages.globals |= {"bar": bar}
    return pages


def _values(record: StudyRecord) -> dict[str, Any]:
    winners = trial_views.winners(record)
    found = arms(record)
    return {
        "record": record,
        "version": lethe.__version__,
        "summary": summary(record),
        "headline": headline(record),
        "tiles": tiles(record),
        "front": front(record),
        "comparison": comparison(record),
        "legend": legend(found),
        "colors": colors(found),
        "charts": [] if found else charts(record),
        "winners": winners,
        "seeds_told": confirmation_and_audits.describe_optimism(record),
        "confirmed_members": confirmation_and_audits.confirmed_members(record),
        "audit_tables": (tables := confirmation_and_audits.audit_tables(record)),
        "audit_variants": {name: text for tables in tables for name, text in tables.variants.items()},
        "knee": trial_views.knee(record),
        "named": trial_views.names(record),
        "params": trial_views.param_names(record),
        "trials": trial_views.ranked(record.trials),
        "complete": sum(trial.verdict == "complete" for trial in record.trials),
        "kind": trial_views.trial_kind,
        "kinds": trial_views.KINDS,
        "answers": trial_views.answers,
        "wanted": trial_views.wanted,
        "has_win_rate": any("win_rate" in trial.metrics for trial in record.trials),
        "meanings": {name: metric.meaning for name, metric in METRICS_OF[_benchmark(record)].items()},
    }


def _benchmark(record: StudyRecord) -> str:
    return record.study.get("benchmark", {}).get("name", "tofu")


def summary(record: StudyRecord) -> str:
    """The study in two or three sentences."""
    goals = " and ".join(f"{'low' if g.direction == 'minimize' else 'high'} {g.metric}" for g in record.objectives)
    found = arms(record)
    of = f" of {format_count(len(found), 'arm')} with {format_count(len(found[0].seeds), 'seed')}" if found else ""
    said = [f"{format_count(len(record.trials), 'trial')}{of} searched for {goals}; {_ended(record)}."]
    if knee := trial_views.knee(record):
        scores = {g.metric: format_number(trial_views.value(knee.metrics, g.metric)) for g in record.objectives}
        moves = " and ".join(f"{metric} is {score}{_against(record, metric)}" for metric, score in scores.items())
        said.append(f"At the knee, trial {knee.number}, {moves}.")
    if record.interrupted:
        said.append("The study was interrupted; --resume goes on with it.")
    return " ".join(said)


def _ended(record: StudyRecord) -> str:
    complete = sum(trial.verdict == "complete" for trial in record.trials)
    if not complete:
        return "none completed, so there is no front"
    if not record.front:
        return f"{complete} completed, none of them better than every floor"
    return f"{complete} completed and {len(record.front)} of them make up the Pareto front"


def _against(record: StudyRecord, metric: str) -> str:
    models = {"start": record.start, "oracle": record.oracle}
    scores = {name: model.metrics[metric] for name, model in models.items() if model and metric in model.metrics}
    known = [f"{name} {format_number(score)}" for name, score in scores.items()]
    return f" ({', '.join(known)})" if known else ""


def headline(record: StudyRecord) -> str:
    """When, how long, which study."""
    began = datetime.fromtimestamp(record.began, UTC).strftime("%-d %B %Y, %H:%M UTC") if record.began else "no date"
    took = f" · {format_duration(record.ended - record.began)}" if record.ended else ""
    return f"{began}{took} · study {record.id}"


def tiles(record: StudyRecord) -> list[Tile]:
    """The numbers at the top."""
    ended = (
        ", ".join(f"{format_count} {verdict}" for verdict, format_count in trial_views.verdicts(record)) or "none ended"
    )
    feasible = sum(trial.verdict == "complete" and trial.feasible for trial in record.trials)
    found = [
        Tile("Trials", str(len(record.trials)), ended),
        Tile("On the front", str(len(record.front)), f"of {feasible} above every floor"),
        Tile("Hypervolume", format_number(record.hypervolume), "from the floors; larger is better"),
    ]
    if knee := trial_views.knee(record):
        for goal in record.objectives[:2]:
            note = _against(record, goal.metric).strip(" ()") or trial_views.wanted(goal)
            found.append(
                Tile(f"{goal.metric} at the knee", format_number(trial_views.value(knee.metrics, goal.metric)), note)
            )
    spent = [seconds for trial in record.trials if math.isfinite(seconds := _spent(trial))]
    if spent:
        found.append(
            Tile("Time in trials", format_duration(sum(spent)), f"{format_duration(sum(spent) / len(spent))} each")
        )
    return found


def _spent(trial: TrialRecord) -> float:
    """A trial's own clock, else when it began and ended."""
    measured = trial_views.value(trial.metrics, "seconds")
    return measured if math.isfinite(measured) else trial.ended - trial.began if trial.ended else math.nan


def _seconds(trial: TrialRecord) -> str:
    seconds = _spent(trial)
    return format_setting(seconds) if math.isfinite(seconds) else "–"


def _words(text: str) -> str:
    return text.replace("_", " ")


def _json(value: Mapping[str, Any]) -> str:
    """Readable; the template escapes it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def write_report(record: StudyRecord, folder: Path, *, store: str | None = None, model: str = "") -> Path:
    """Write report.html, front.html, front.png, trials.csv and study.json into `folder`, for a comparison also
    comparison.csv and comparison.png; return report.html's path.

    `store` is the address of the runs (a tracker's `uri`) and `model` the registered model's name, where there are
    such. Raises BadInput where the folder cannot be written.
    """
    files: dict[str, str | bytes] = {
        "study.json": record.model_dump_json(indent=1),
        "trials.csv": trials_csv(record),
        "front.png": front_png(record),
        **render(record, store=store, model=model),
    }
    if record.members:
        files |= {"comparison.csv": comparison_csv(record), "comparison.png": comparison_png(record)}
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode(errors="replace")
        try:
            atomic_write(folder / name, raw)
        except OSError as error:
            raise UserError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return folder / "report.html"


def trials_csv(record: StudyRecord) -> str:
    """One row per trial in the order of their numbers: parameters as `params.*`, last numbers as `metrics.*`."""
    params = list(dict.fromkeys(key for trial in record.trials for key in trial.params))
    found = {trial.number: {**trial.metrics, **trial.afterwards} for trial in record.trials}
    metrics = list(dict.fromkeys(key for values in found.values() for key in values))
    named = names(record)
    file = StringIO()
    rows = csv.writer(file, lineterminator="\n")
    plain = ["number", "run", "verdict", "reason", "feasible", "pareto_rank", "began", "ended", "folder"]
    heads = [*(f"params.{key}" for key in params), *(f"metrics.{key}" for key in metrics)]
    rows.writerow([*plain, "front", "aliases", "epochs", *heads])
    for trial in sorted(record.trials, key=lambda trial: trial.number):
        told = [trial.on_front, " ".join(named.get(trial.number, ())), len(trial.series)]
        values = [*(trial.params.get(key) for key in params), *(found[trial.number].get(key) for key in metrics)]
        rows.writerow([*(getattr(trial, name) for name in plain), *told, *values])
    return file.getvalue()
