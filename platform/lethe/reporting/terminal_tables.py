"""A study, its front and its trials as text and tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from lethe.records import Confirmation, ModelScores, Scalar, StudyRecord, TrialRecord
from lethe.reporting.scales import format_duration, format_number, format_setting
from lethe.reporting.trial_views import aliases_by_trial

SHORT_NAMES = {
    "objective.name": "",
    "optimizer.name": "",
    "adapter.name": "",
    "adapter.rank": "rank",
    "optimizer.learning_rate": "learning rate",
    "optimizer.clip_threshold": "clip threshold",
    "optimizer.hessian_interval": "Hessian interval",
    "optimizer.sam_rho": "SAM's rho",
    "objective.gamma": "gamma",
    "objective.damping": "damping",
    "objective.strength": "strength",
}
VERDICT_STYLES = {"yes": "bold green", "no": "red", "partly": "yellow"}


@dataclass(frozen=True)
class StudyLine:
    """A study in a list. `changed`: when its files changed last, in seconds since 1970; `runs`: how many its folder
    has; `record`: None where it has no results yet."""

    id: str
    state: str
    changed: float
    runs: int
    record: StudyRecord | None

    @property
    def trials(self) -> int:
        """The number of its trials; while it runs for the first time, of those that have begun."""
        return len(self.record.trials) if self.record and self.record.trials else self.runs

    def as_json(self) -> dict[str, Any]:
        """Return the line as plain values; None for what is not known."""
        record = self.record
        best = record.winner if record else None
        return {
            "id": self.id,
            "space": record and record.space,
            "state": self.state,
            "changed": self.changed,
            "trials": self.trials,
            "front": len(record.front) if record else None,
            "best": best
            and {
                "trial": best.number,
                "scores": {goal.metric: best.metrics.get(goal.metric) for goal in record.objectives} if record else {},
                "forgotten": best.forgotten and best.forgotten.forgotten,
                "version": best.version or None,
            },
        }


def study_list(lines: Iterable[StudyLine], title: str) -> Table:
    """Return the table of `lethe ls`."""
    table = Table(title=title, title_justify="left")
    for column in ("study", "changed", "trials", "best", "scores", "forgotten", "state"):
        table.add_column(column, overflow="fold")
    for line in lines:
        record = line.record
        best = record.winner if record else None
        goals = record.objectives if record and best else ()
        scores = [f"{goal.metric} {_value(best, goal.metric)}" for goal in goals if best]
        table.add_row(
            line.id,
            datetime.fromtimestamp(line.changed).strftime("%Y-%m-%d %H:%M") if line.changed else "",
            str(line.trials),
            f"{best.number}" if best else "",
            "  ".join(scores),
            format_forgotten(best) if best else "",
            line.state,
        )
    return table


def front_table(record: StudyRecord) -> Table:
    """Return the front, with verdicts, versions and what was confirmed where there are such."""
    aliases = aliases_by_trial(record)
    title = f"{record.id}: {len(record.front)} of {len(record.trials)} trials on the front"
    table = Table(title=title, title_justify="left")
    repeated = any(trial.confirmation for trial in record.front)
    judged = any(trial.forgotten for trial in record.front)
    registered = any(trial.version for trial in record.front)
    optional = {"fresh seeds": repeated, "forgotten": judged, "name": True, "version": registered}
    arms = ["arm"] if record.members else []
    columns = ["trial", *arms, *(goal.metric for goal in record.objectives)]
    for column in (*columns, *(name for name, shown in optional.items() if shown), "configuration"):
        table.add_column(column, overflow="fold", no_wrap=column not in ("fresh seeds", "configuration"))
    for trial in record.front:
        cells: list[str | Text] = [
            str(trial.number),
            *(str(trial.params.get(key, "")) for key in arms),
            *(f"{trial.metrics[goal.metric]:.3f}" for goal in record.objectives),
        ]
        if repeated:
            cells.append(_format_confirmation(trial.confirmation))
        if judged:
            cells.append(format_forgotten(trial))
        cells.append(next(iter(aliases.get(trial.number, ())), ""))
        if registered:
            cells.append(trial.version)
        table.add_row(*cells, format_settings(trial, searched(record)))
    return table


def describe_empty_front(record: StudyRecord) -> str:
    """Return in one sentence why no trial is on the front."""
    complete = sum(trial.verdict == "complete" for trial in record.trials)
    ends = f"{record.id}: no trial is on the front: {complete} of {len(record.trials)} completed"
    if not complete:
        return ends
    floors = [
        f"{goal.metric} {'below' if goal.direction == 'minimize' else 'above'} {format_number(goal.floor)}"
        for goal in record.objectives
        if goal.floor is not None
    ]
    return f"{ends}, and none of them is better than every floor ({', '.join(floors)})"


def trial_view(record: StudyRecord, trial: TrialRecord) -> Iterator[str | Text | Table]:
    """Yield what is known of one trial: its place, parameters, scores, verdict, folder and version."""
    names = aliases_by_trial(record).get(trial.number, [])
    place = "on the front" if trial.on_front else "not on the front"
    took = format_duration(trial.ended - trial.began) if trial.ended else ""
    yield ", ".join(filter(None, [f"trial {trial.number} of {record.id}: {trial.verdict}", place, *names, took]))
    if trial.reason:
        yield trial.reason.strip()
    varying: Collection[str] = searched(record) or trial.params.keys()
    yield _parameters({key: value for key, value in trial.params.items() if key in varying})
    yield _scores(record, trial)
    if trial.forgotten:
        yield Text.assemble("forgotten: ", format_forgotten(trial))
        yield _criteria(trial)
    if trial.confirmation:
        yield Text.assemble("fresh seeds: ", _format_confirmation(trial.confirmation))
    yield f"folder   {trial.folder or '-'}"
    yield f"version  {trial.version or 'not registered'}"
    if trial.adapter:
        yield f"adapter  {trial.adapter.describe()}"


def _parameters(values: Mapping[str, Scalar]) -> Table:
    table = Table("parameter", "value")
    for name, value in values.items():
        table.add_row(name, format_setting(value))
    return table


def _scores(record: StudyRecord, trial: TrialRecord) -> Table:
    """Return the trial's metrics beside the start model's and the oracle's, the objectives first."""
    models: dict[str, ModelScores | TrialRecord | None]
    models = {"start": record.start, "trial": trial, "oracle": record.oracle}
    table = Table("metric", *(name for name, model in models.items() if model))
    objectives = [goal.metric for goal in record.objectives]
    known = [metric for metric in trial.metrics if metric in record.start.metrics]  # costs and steps are left out
    for metric in dict.fromkeys([*objectives, *known, *trial.afterwards]):
        table.add_row(metric, *(_value(model, metric) for model in models.values() if model))
    return table


def _value(model: ModelScores | TrialRecord, metric: str) -> str:
    return format_number(model.numbers.get(metric))


def _criteria(trial: TrialRecord) -> Table:
    table = Table("criterion", "value", "bound", "holds")
    for criterion in trial.forgotten.criteria if trial.forgotten else ():
        holds = Text("yes", "green") if criterion.holds else Text("no", "red")
        table.add_row(criterion.metric, format_number(criterion.value), criterion.bound, holds)
    return table


def format_forgotten(trial: TrialRecord) -> Text:
    """Return the verdict on a model of the front; a dash where it was not judged."""
    forgotten = trial.forgotten.forgotten if trial.forgotten else "-"
    return Text(forgotten, VERDICT_STYLES.get(forgotten, ""))


def _format_confirmation(confirmation: Confirmation | None) -> str | Text:
    if confirmation is None:
        return ""
    means = "  ".join(f"{mean:.3f} ± {confirmation.spread[name]:.3f}" for name, mean in confirmation.mean.items())
    if confirmation.confirmed:
        return means
    return Text.assemble(means, "  " if means else "", (confirmation.reason, "yellow"))


def searched(record: StudyRecord) -> Collection[str]:
    """Return the names of the parameters that the study searches; none in a comparison, whose arms search their own."""
    space = record.study.get("space")
    return space if isinstance(space, Mapping) else ()


def format_settings(trial: TrialRecord, names: Collection[str] = ()) -> str:
    """Return the trial's parameters in one line, under the names that people use: those of `names`, where there are
    some, or else the ones that most studies search."""
    others = {key: key.rpartition(".")[2].replace("_", " ") for key in sorted(names) if key not in SHORT_NAMES}
    parts = []
    for key, short in {**SHORT_NAMES, **others}.items():
        if (value := trial.params.get(key)) is not None and (not names or key in names):
            parts.append(f"{short} {_setting(value)}".strip())
    return ", ".join(parts)


def _setting(value: Scalar) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
