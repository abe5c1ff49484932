"""A study as MLflow's pages show it to a person: names, colours, descriptions, and the view that its link opens.

Plain text and JSON, made from records; `mlflow_runs` sends them. Descriptions are Markdown, whose addresses are
relative to the page, so that they hold behind any proxy and prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from lethe.records import StudyRecord, TrialRecord

NOTE, COLOR = "mlflow.note.content", "mlflow.runColor"
VIEW = "mlflow.sharedViewState."  # the prefix of an experiment's tags that its page reads as views
COLORS = {"start": "#1c2130", "oracle": "#7b5ea7", "knee": "#d9480f", "front": "#2f5bd0", "trial": "#b6bdca"}
PICTURE, REPORT = "report/front.png", "report/report.html"
MOST_PARAMETERS = 8  # columns of a view


def runs_page(experiment: str, view: str | None) -> str:
    """Return the address, below a server's, of the page that lists an experiment's runs as the view `view` has them;
    None: as MLflow lists them."""
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    return f"{page}&viewStateShareKey={quote(view)}" if view else page


def front_name(record: StudyRecord, trial: TrialRecord) -> str:
    """Return the name of a front member's run: its aliases, its number and its objectives."""
    names = [alias for alias, number in record.aliases.items() if number == trial.number]
    scores = " ".join(f"{goal.metric} {trial.metrics[goal.metric]:.2g}" for goal in record.objectives)
    return f"{', '.join(names) or 'front'} {trial.number} · {scores}"


def front_color(record: StudyRecord, trial: TrialRecord) -> str:
    """Return the color of a trial's run, which charts and lists show."""
    if not trial.on_front:
        return COLORS["trial"]
    return COLORS["knee" if trial.number == record.aliases.get("knee") else "front"]


def parameter_names(record: StudyRecord) -> tuple[str, ...]:
    """Return the trials' parameters that are searched, in the order of the space; those of a comparison are its arms
    and seeds."""
    return ("arm", "arm_seed") if record.study.get("compare") else tuple(record.study.get("space", ()))


def study_view(record: StudyRecord) -> str:
    """Return, as JSON, the view of one study's runs: the best in the first objective come first."""
    return json.dumps(_view(record, f"tags.`lethe.study` = '{record.id}'"))


def space_view(record: StudyRecord) -> str:
    """Return, as JSON, a view with a name, which MLflow lists: the fronts of all studies of this search space."""
    state = _view(record, f"tags.front = 'true' and tags.`lethe.space` = '{record.space}'")
    at_ms = int(record.began * 1000)
    named = {"name": f"{record.space}: the fronts", "createdAt": at_ms, "updatedAt": at_ms}
    return json.dumps({**named, "state": json.dumps(state)})


def _view(record: StudyRecord, query: str) -> dict[str, Any]:
    """Return a view as MLflow's page saves it: filter, order, columns, and a chart of the first two objectives."""
    metrics = [goal.metric for goal in record.objectives]
    columns = [f"metrics.`{metric}`" for metric in metrics]
    columns += ["tags.`front`", "tags.`forgotten`", "tags.`verdict`"]
    columns += [f"params.`{name}`" for name in parameter_names(record)[:MOST_PARAMETERS]]
    state: dict[str, Any] = {
        "searchFilter": query,
        # In any order but the one by time the page does not fold the trials up below their study.
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": record.objectives[0].direction == "minimize",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
    }
    if len(metrics) > 1:
        section = {"uuid": "front", "name": "front", "display": True, "isReordered": False}
        chart = {
            "uuid": "front-chart",
            "metricSectionId": "front",
            "type": "SCATTER",
            "displayName": f"{metrics[1]} against {metrics[0]}",
            "xaxis": {"key": metrics[0], "type": "METRIC"},
            "yaxis": {"key": metrics[1], "type": "METRIC"},
            "runsCountToCompare": 100,
            "deleted": False,
            "isGenerated": False,
        }
        state |= {"compareRunSections": [section], "compareRunCharts": [chart]}
    return state


def study_note(
    record: StudyRecord, experiment: str, parent: str, runs: Mapping[int, str], versions: Mapping[str, str], model: str
) -> str:
    """Return the description of a study's run.

    `runs` has the ids of the trials' runs by number; `versions` the versions of the registered model `model` by run
    hash.
    """
    goals = " and ".join(f"{goal.direction} `{goal.metric}`" for goal in record.objectives)
    lines = [f"Study **{record.space}** `{record.id}`: {goals}."]
    lines += [f"- {name}: trained {training.describe()}" for name, training in record.trainings.items()]
    if not record.trials:
        return "\n\n".join(lines)
    lines.append(f"{len(record.trials)} trials, {len(record.front)} on the front.")
    winners = _winners(record)
    lines += [f"**{name}, trial {trial.number}:** {_verdict(trial)}." for name, trial in winners if trial.forgotten]
    if winners:
        lines.append(_table(record, winners, experiment, runs, versions, model))
    report = f"[report](#/experiments/{experiment}/runs/{parent}/artifacts/{REPORT})"
    table = f"[trials as CSV]({_artifact(parent, 'report/trials.csv')})"
    lines.append(f"{report} · {table} · [all trials]({runs_page(experiment, record.id)})")
    # First, since MLflow folds a long description up below its first lines.
    return "\n\n".join([picture(parent), *lines])


def front_note(record: StudyRecord, trial: TrialRecord, experiment: str, parent: str, version: str, model: str) -> str:
    """Return the description of a front member's run; `version`: of the registered model `model`, empty without."""
    names = [name for name, found in _winners(record) if found.number == trial.number]
    study = f"[{record.id}](#/experiments/{experiment}/runs/{parent})"
    best = f": {', '.join(names)}" if names else ""
    lines = [f"Trial {trial.number} of {study}, on its Pareto front{best}."]
    if trial.forgotten:
        lines.append(f"**{_verdict(trial)}.**")
    settings = [f"{key} = {trial.params[key]}" for key in parameter_names(record) if key in trial.params]
    if settings:
        lines.append(f"`{'`, `'.join(settings)}`")
    if version:
        lines.append(f"Model: {_version_link(model, version)}")
    return "\n\n".join([picture(parent), *lines])


def reference_note(kind: str, record: StudyRecord) -> str:
    """Return the description of the run that holds the scores of the start model or the oracle."""
    meaning = {"start": "The start model, before unlearning", "oracle": "The oracle, never trained on the forget rows"}
    training = record.trainings.get(kind)
    return f"{meaning[kind]}." + (f" Trained {training.describe()}." if training else "")


def picture(parent: str) -> str:
    """Return the study's picture of its front, an artifact of the run `parent`."""
    return f"![the Pareto front]({_artifact(parent, PICTURE)})"


def _artifact(run: str, path: str) -> str:
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run}"


def _winners(record: StudyRecord) -> list[tuple[str, TrialRecord]]:
    """Return the front members that have an alias, with it, in the record's order."""
    front = {trial.number: trial for trial in record.front}
    return [(alias, front[number]) for alias, number in record.aliases.items() if number in front]


def _verdict(trial: TrialRecord) -> str:
    return trial.forgotten.describe() if trial.forgotten else ""


def _table(
    record: StudyRecord,
    winners: list[tuple[str, TrialRecord]],
    experiment: str,
    runs: Mapping[int, str],
    versions: Mapping[str, str],
    model: str,
) -> str:
    """Return a Markdown table of start model, winners and oracle by objective, with links to runs and versions."""
    keys = [goal.metric for goal in record.objectives]

    def rows() -> Iterator[list[str]]:
        yield ["", *keys, "forgotten", "run", "model"]
        yield ["---"] * (len(keys) + 4)
        yield ["start", *_numbers(record.start.metrics, keys), "", "", ""]
        for name, trial in winners:
            run = runs.get(trial.number)
            link = f"[trial {trial.number}](#/experiments/{experiment}/runs/{run})" if run else f"trial {trial.number}"
            version = versions.get(trial.run)
            forgotten = trial.forgotten.forgotten if trial.forgotten else ""
            registered = _version_link(model, version) if version else ""
            yield [name, *_numbers(trial.metrics, keys), forgotten, link, registered]
        if record.oracle:
            yield ["oracle", *_numbers(record.oracle.metrics, keys), "", "", ""]

    return "\n".join(f"| {' | '.join(row)} |" for row in rows())


def _version_link(model: str, version: str) -> str:
    return f"[models:/{model}/{version}](#/models/{quote(model)}/versions/{version})"


def _numbers(metrics: Mapping[str, float], keys: list[str]) -> list[str]:
    return [f"{metrics[key]:.3g}" if key in metrics else "" for key in keys]
