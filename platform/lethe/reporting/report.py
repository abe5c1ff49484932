"""A study's report: its pages, pictures and tables as files, each written whole or not at all.

Everything on a page is escaped: answers come from models, reasons from libraries.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lethe
from lethe.config.answer_audits import OWN_METRICS
from lethe.config.benchmarks import BENCHMARKS
from lethe.errors import UserError
from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.comparison import tables
from lethe.reporting.comparison.arm_fronts import audit_with
from lethe.reporting.comparison.arms import arms
from lethe.reporting.comparison.claims import claims
from lethe.reporting.comparison.csv_file import comparison_csv
from lethe.reporting.comparison.figures import comparison_png, spread_bar
from lethe.reporting.comparison.findings import format_p, format_signed
from lethe.reporting.comparison.interval_figure import verdicts_png
from lethe.reporting.comparison.opening import comparison_opening
from lethe.reporting.comparison.summary import comparison_view
from lethe.reporting.comparison.verdict_table import verdicts_csv
from lethe.reporting.confirmation_and_audits import audit_tables, confirmed_members, describe_confirmations
from lethe.reporting.curves import interim_epochs, objective_charts
from lethe.reporting.evidence import evidence
from lethe.reporting.front import lay_out_front
from lethe.reporting.front_picture import front_png, front_thumbnail
from lethe.reporting.next_steps import next_steps
from lethe.reporting.opening import Opening, opening
from lethe.reporting.page_scripts import Figure, page_scripts
from lethe.reporting.scales import format_fixed, format_number, format_setting
from lethe.reporting.study_figures import study_figures
from lethe.reporting.terms import RUN_MEANINGS, TERMS
from lethe.reporting.trial_pages import trial_pages
from lethe.reporting.trial_views import (
    KIND_LABELS,
    aliases_by_trial,
    best_first,
    constant_parameters,
    front_by_alias,
    knee_trial,
    metric_value,
    parameter_meaning,
    sample_answers,
    trial_kind,
    varying_parameters,
)
from lethe.storage.paths import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment

FILES = {  # beside report.html, with what each has
    "trials.csv": "every parameter and number of every trial",
    "study.json": "everything",
    "front.png": "the front as a picture",
    "front-small.png": "the same, small",
    "front.html": "the front alone",
}
COMPARISON_FILES = {
    "comparison.csv": "the table with every seed's numbers",
    "verdicts.csv": "every verdict with what stands behind it",
    "comparison.png": "the comparison as a picture",
}
VERDICTS_PICTURE = {"verdicts.png": "the verdicts' intervals as a picture"}


def write_report(record: StudyRecord, folder: Path, *, store: str | None = None, model: str = "") -> Path:
    """Write report.html, front.html, front.png, front-small.png, trials.csv and study.json into `folder`, for a
    comparison also comparison.csv, comparison.png, verdicts.csv and, with pairs of arms, verdicts.png; return
    report.html's path.

    `store` is the address of the runs (a tracker's `uri`) and `model` the registered model's name, where there are
    such. Raises UserError where the folder cannot be written.
    """
    files: dict[str, str | bytes] = {
        "study.json": record.model_dump_json(indent=1),
        "trials.csv": trials_csv(record),
        "front.png": front_png(record),
        "front-small.png": front_thumbnail(record),
        **render_pages(record, store=store, model=model),
    }
    if record.members:
        files |= {
            "comparison.csv": comparison_csv(record),
            "verdicts.csv": verdicts_csv(record),
            "comparison.png": comparison_png(record),
            **({"verdicts.png": verdicts_png(found)} if (found := claims(record)) else {}),
        }
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode(errors="replace")
        try:
            atomic_write(folder / name, raw)
        except OSError as error:
            raise UserError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return folder / "report.html"


def trials_csv(record: StudyRecord) -> str:
    """Return trials.csv: a line per trial by number, with parameters as `params.*` and last numbers as `metrics.*`."""
    params = list(dict.fromkeys(key for trial in record.trials for key in trial.params))
    metrics = {trial.number: trial.numbers for trial in record.trials}
    metric_names = list(dict.fromkeys(key for values in metrics.values() for key in values))
    aliases = aliases_by_trial(record)
    file = StringIO()
    lines = csv.writer(file, lineterminator="\n")
    fields = ["number", "run", "verdict", "reason", "feasible", "pareto_rank", "began", "ended", "folder"]
    heads = [*(f"params.{key}" for key in params), *(f"metrics.{key}" for key in metric_names)]
    lines.writerow([*fields, "front", "aliases", "epochs", *heads])
    for trial in sorted(record.trials, key=lambda trial: trial.number):
        derived = [trial.on_front, " ".join(aliases.get(trial.number, ())), len(trial.series)]
        values = [
            *(trial.params.get(key) for key in params),
            *(metrics[trial.number].get(key) for key in metric_names),
        ]
        lines.writerow([*(getattr(trial, field) for field in fields), *derived, *values])
    return file.getvalue()


def render_pages(record: StudyRecord, *, store: str | None = None, model: str = "") -> dict[str, str]:
    """Return report.html and front.html by file name; for `store` and `model` see `write_report`."""
    values = _template_values(record, store) | {"store": store, "model": model}
    templates = template_environment()
    return {name: templates.get_template(f"{name}.j2").render(values) for name in ("report.html", "front.html")}


def template_environment() -> Environment:
    """Return this package's templates with the filters and functions that all pages use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("lethe.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    templates.filters |= {"short": format_number, "setting": format_setting}
    templates.filters |= {"words": _without_underscores, "seconds": _format_seconds, "seconds_value": trial_seconds}
    templates.filters |= {"capitalized": lambda text: text[:1].upper() + text[1:]}
    templates.filters |= {"indented": _indented_json, "quoted": json.dumps}
    templates.globals |= {
        "column_groups": tables.column_groups,
        "format_mean": tables.format_mean,
        "format_spread": tables.format_spread,
        "format_values": tables.format_values,
        "spread_bar": spread_bar,
        "format_fixed": format_fixed,
        "format_p": format_p,
        "format_signed": format_signed,
        "audit_with": audit_with,
    }
    return templates


def _template_values(record: StudyRecord, store: str | None) -> dict[str, Any]:
    study_arms = arms(record)
    audits = [] if record.arm_fronts else audit_tables(record)  # arms' fronts have tables of their own
    # A browser follows the address of a server, and none in a file system.
    link = store if store and store.startswith(("http://", "https://")) else ""
    benchmark = BENCHMARKS[_benchmark_name(record)]
    meanings = {name: metric.meaning for name, metric in benchmark.metrics.items()}
    rows = evidence(record, benchmark)
    figures = study_figures(record)
    comparison = comparison_view(record)
    charts = {} if study_arms else objective_charts(record)
    params = varying_parameters(record)
    winners = front_by_alias(record)
    return {
        "record": record,
        "version": lethe.__version__,
        "headline": headline(record),
        "opening": first_screen(record),
        "steps": next_steps(record, store),
        "trainings": describe_trainings(record),
        "front": lay_out_front(record),
        "comparison": comparison,
        "charts": charts,
        "figures": figures,
        "scripts": page_scripts(
            ("tables", "trials"), figures, study=trial_pages(record, meanings | RUN_MEANINGS, rows, link)
        ),
        "winners": winners,
        "link": link,
        "evidence": rows,
        "judged": any(trial.forgotten for trial in record.front),
        "confirmation_summary": "" if record.arm_fronts else describe_confirmations(record),
        "confirmed_members": confirmed_members(record),
        "audit_tables": audits,
        "audit_meanings": {**{name: metric.meaning for name, metric in OWN_METRICS.items()}, **meanings},
        "knee": knee_trial(record),
        "aliases": aliases_by_trial(record),
        "params": params,
        "meanings_of_params": {name: text for key, name in params.items() if (text := parameter_meaning(key))},
        "constants": {} if study_arms else constant_parameters(record),
        "trials": best_first(record.trials),
        "complete": sum(trial.verdict == "complete" for trial in record.trials),
        "kind": trial_kind,
        "kind_labels": KIND_LABELS,
        "sample_answers": sample_answers,
        "has_interim": any(map(interim_epochs, record.trials)),
        "has_win_rate": any("win_rate" in trial.metrics for trial in record.trials),
        "meanings": meanings,
        "terms": TERMS,
        "beside": FILES | (COMPARISON_FILES if study_arms else {}) | (VERDICTS_PICTURE if "claim-1" in figures else {}),
        "sections": _sections(record, figures),
    }


def _sections(record: StudyRecord, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Return the names of the page's sections by their ids, for its navigation."""
    plain = not record.members
    there = {
        "next": ("What next", True),
        "arms": ("The comparison", not plain),
        "claims": ("Verdicts", "claim-1" in figures),
        "winners": ("Winners", bool(record.front)),
        "evidence": ("Evidence", bool(record.front)),
        "fronts": ("Fresh seeds and audits", bool(record.arm_fronts)),
        "audits": ("Audits", bool(audit_tables(record)) and not record.arm_fronts),
        "answers": ("Answers", bool(record.front)),
        "epochs": ("By epoch", bool(record.trials)),
        "costs": ("Time and memory", not plain),
        "parameters": ("Parameters", "parallel" in figures),
        "time": ("Over time", "timeline" in figures),
        "trials": ("Every trial", True),
        "where": ("Files", True),
    }
    return {section: name for section, (name, shown) in there.items() if shown}


def _benchmark_name(record: StudyRecord) -> str:
    return str(record.study.get("benchmark", {}).get("name", "tofu"))


def first_screen(record: StudyRecord) -> Opening:
    """Return the text of the first screen, of a comparison or of another study."""
    return comparison_opening(record) if record.members else opening(record)


def headline(record: StudyRecord) -> str:
    """Return the study's date, or that it has none."""
    return describe_date(record.began)


def describe_date(began: float) -> str:
    """Return a time in seconds since 1970 as a date, 0 as `no date`."""
    return datetime.fromtimestamp(began, UTC).strftime("%-d %B %Y, %H:%M UTC") if began else "no date"


def describe_trainings(record: StudyRecord) -> list[str]:
    """Return a sentence for each model that lethe trained before the study."""
    models = {"start": "Start model", "oracle": "Oracle"}
    return [f"{models[name]} trained {training.describe()}." for name, training in record.trainings.items()]


def trial_seconds(trial: TrialRecord) -> float:
    """Return the trial's own clock, else the time from its beginning to its end; NaN without either."""
    measured = metric_value(trial.metrics, "seconds")
    return measured if math.isfinite(measured) else trial.ended - trial.began if trial.ended else math.nan


def _format_seconds(trial: TrialRecord) -> str:
    seconds = trial_seconds(trial)
    return format_setting(seconds) if math.isfinite(seconds) else "–"


def _without_underscores(text: str) -> str:
    return text.replace("_", " ")


def _indented_json(value: Mapping[str, Any]) -> str:
    """Return readable JSON, not escaped: the template escapes it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
