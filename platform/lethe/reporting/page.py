"""The report's words and its rendering. Everything is escaped: answers come from models, reasons from libraries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import lethe
from lethe.config.metrics import METRICS_OF
from lethe.records import StudyRecord, TrialRecord
from lethe.reporting import afterwards, facts
from lethe.reporting.comparison import table
from lethe.reporting.comparison.arms import arms, colors, legend
from lethe.reporting.comparison.comparison import comparison
from lethe.reporting.comparison.curves import bar
from lethe.reporting.front import front
from lethe.reporting.lines import charts
from lethe.reporting.scales import count, duration, setting, short

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
        loader=PackageLoader("lethe.reporting", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pages.filters |= {"short": short, "setting": setting, "words": _words, "seconds": _seconds}
    pages.filters |= {"indented": _json, "quoted": json.dumps}
    pages.globals |= {"groups": table.groups, "mean": table.mean, "spread": table.spread, "each": table.each}
    pages.globals |= {"bar": bar}
    return pages


def _values(record: StudyRecord) -> dict[str, Any]:
    winners = facts.winners(record)
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
        "seeds_told": afterwards.told(record),
        "confirmed_members": afterwards.confirmed_members(record),
        "audit_tables": (tables := afterwards.audit_tables(record)),
        "audit_variants": {name: text for table in tables for name, text in table.variants.items()},
        "knee": facts.knee(record),
        "named": facts.names(record),
        "params": facts.param_names(record),
        "trials": facts.ranked(record.trials),
        "complete": sum(trial.verdict == "complete" for trial in record.trials),
        "kind": facts.kind,
        "kinds": facts.KINDS,
        "answers": facts.answers,
        "wanted": facts.wanted,
        "has_win_rate": any("win_rate" in trial.metrics for trial in record.trials),
        "meanings": {name: metric.meaning for name, metric in METRICS_OF[_benchmark(record)].items()},
    }


def _benchmark(record: StudyRecord) -> str:
    return record.study.get("benchmark", {}).get("name", "tofu")


def summary(record: StudyRecord) -> str:
    """The study in two or three sentences."""
    goals = " and ".join(f"{'low' if g.direction == 'minimize' else 'high'} {g.metric}" for g in record.objectives)
    found = arms(record)
    of = f" of {count(len(found), 'arm')} with {count(len(found[0].seeds), 'seed')}" if found else ""
    said = [f"{count(len(record.trials), 'trial')}{of} searched for {goals}; {_ended(record)}."]
    if knee := facts.knee(record):
        scores = {g.metric: short(facts.value(knee.metrics, g.metric)) for g in record.objectives}
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
    known = [f"{name} {short(score)}" for name, score in scores.items()]
    return f" ({', '.join(known)})" if known else ""


def headline(record: StudyRecord) -> str:
    """When, how long, which study."""
    began = datetime.fromtimestamp(record.began, UTC).strftime("%-d %B %Y, %H:%M UTC") if record.began else "no date"
    took = f" · {duration(record.ended - record.began)}" if record.ended else ""
    return f"{began}{took} · study {record.id}"


def tiles(record: StudyRecord) -> list[Tile]:
    """The numbers at the top."""
    ended = ", ".join(f"{count} {verdict}" for verdict, count in facts.verdicts(record)) or "none ended"
    feasible = sum(trial.verdict == "complete" and trial.feasible for trial in record.trials)
    found = [
        Tile("Trials", str(len(record.trials)), ended),
        Tile("On the front", str(len(record.front)), f"of {feasible} above every floor"),
        Tile("Hypervolume", short(record.hypervolume), "from the floors; larger is better"),
    ]
    if knee := facts.knee(record):
        for goal in record.objectives[:2]:
            note = _against(record, goal.metric).strip(" ()") or facts.wanted(goal)
            found.append(Tile(f"{goal.metric} at the knee", short(facts.value(knee.metrics, goal.metric)), note))
    spent = [seconds for trial in record.trials if math.isfinite(seconds := _spent(trial))]
    if spent:
        found.append(Tile("Time in trials", duration(sum(spent)), f"{duration(sum(spent) / len(spent))} each"))
    return found


def _spent(trial: TrialRecord) -> float:
    """A trial's own clock, else when it began and ended."""
    measured = facts.value(trial.metrics, "seconds")
    return measured if math.isfinite(measured) else trial.ended - trial.began if trial.ended else math.nan


def _seconds(trial: TrialRecord) -> str:
    seconds = _spent(trial)
    return setting(seconds) if math.isfinite(seconds) else "–"


def _words(text: str) -> str:
    return text.replace("_", " ")


def _json(value: Mapping[str, Any]) -> str:
    """Readable; the template escapes it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
