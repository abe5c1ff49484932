"""A study as MLflow's pages show it to a person: names, colours, descriptions, and the view that its link opens.

Plain text and JSON, made from records; `mlflow_runs` sends them. Descriptions are Markdown, whose addresses are
relative to the page, so that they hold behind any proxy and prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from lethe.records import StudyRecord, TrialRecord, VerdictRecord

NOTE, COLOR = "mlflow.note.content", "mlflow.runColor"
VIEW = "mlflow.sharedViewState."  # the prefix of an experiment's tags that its page reads as views
COLORS = {"start": "#1c2130", "oracle": "#7b5ea7", "knee": "#d9480f", "front": "#2f5bd0", "trial": "#b6bdca"}
PICTURE, THUMBNAIL, REPORT = "report/front.png", "report/front-small.png", "report/report.html"
MOST_PARAMETERS = 8  # columns of a view


def runs_page(experiment: str, view: str | None) -> str:
    """Return the address, below a server's, of the page that lists an experiment's runs as the view `view` has them;
    None: as MLflow lists them."""
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    return f"{page}&viewStateShareKey={quote(view)}" if view else page


def run_page(experiment: str, run: str) -> str:
    """Return the address, below a server's, of the page of a run."""
    return f"#/experiments/{experiment}/runs/{run}"


def front_name(record: StudyRecord, trial: TrialRecord) -> str:
    """Return the name of a front member's run: its aliases, its number and its objectives."""
    names = _aliases(record, trial)
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


def study_note(record: StudyRecord, experiment: str, parent: str, runs: Mapping[int, str]) -> str:
    """Return the description of a study's run: of one that is over a picture of its front, verdict and links.

    `runs` has the ids of the trials' runs by number.
    """
    if not record.trials:
        goals = " and ".join(f"{goal.direction} `{goal.metric}`" for goal in record.objectives)
        lines = [f"Study **{record.space}** `{record.id}`: {goals}."]
        lines += [f"- {name}: trained {training.describe()}" for name, training in record.trainings.items()]
        return "\n\n".join(lines)
    report = f"[report]({run_page(experiment, parent)}/artifacts/{REPORT})"
    table = f"[trials as CSV]({_artifact(parent, 'report/trials.csv')})"
    links = [report, table, f"[all trials]({runs_page(experiment, record.id)})"]
    if (best := record.winner) and best.number in runs:
        links.insert(0, f"[trial {best.number}]({run_page(experiment, runs[best.number])})")
    return _beside_picture(experiment, parent, [_study_verdict(record), " · ".join(links)])


def _study_verdict(record: StudyRecord) -> str:
    """Return what came of a study in one line: the best verdict with the names of what fails, and the front's size."""
    counts = f"{len(record.trials)} trials, {len(record.front)} on the front"
    best = record.winner
    if best is None:
        return f"{counts}."
    which = ", ".join([f"trial {best.number}", *_aliases(record, best)])
    if best.forgotten is None:
        return f"Best: {which}. {counts}."
    return f"**{_short_verdict(best.forgotten)}** ({which}). {counts}."


def _short_verdict(found: VerdictRecord) -> str:
    """Return the verdict with the names of the criteria that do not hold, without their numbers."""
    failing = ", ".join(criterion.metric.replace("_", " ") for criterion in found.failing)
    return found.describe().partition(":")[0].capitalize() + (f", fails {failing}" if failing else "")


def front_note(record: StudyRecord, trial: TrialRecord, experiment: str, parent: str, version: str, model: str) -> str:
    """Return the description of a front member's run; `version`: of the registered model `model`, empty without."""
    study = f"[{record.id}]({run_page(experiment, parent)})"
    lines = [f"**{_short_verdict(trial.forgotten)}.**"] if trial.forgotten else []
    lines.append(": ".join(filter(None, [f"On the front of {study}", ", ".join(_aliases(record, trial))])) + ".")
    if version:
        lines.append(f"Model: [models:/{model}/{version}](#/models/{quote(model)}/versions/{version})")
    return _beside_picture(experiment, parent, lines)


def _beside_picture(experiment: str, parent: str, lines: Iterable[str]) -> str:
    """Return the lines beside the small picture of the front, which leads to the large one.

    A table of one row, which is its head: MLflow folds up what is higher than 100 pixels, and greys it out.
    """
    image = f"![the Pareto front]({_artifact(parent, THUMBNAIL)})"
    picture = f"[{image}]({run_page(experiment, parent)}/artifacts/{PICTURE})"
    return f"| {picture} | {'<br>'.join(lines)} |\n| --- | --- |"


def reference_note(kind: str, record: StudyRecord) -> str:
    """Return the description of the run that holds the scores of the start model or the oracle."""
    meaning = {"start": "The start model, before unlearning", "oracle": "The oracle, never trained on the forget rows"}
    training = record.trainings.get(kind)
    return f"{meaning[kind]}." + (f" Trained {training.describe()}." if training else "")


def _artifact(run: str, path: str) -> str:
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run}"


def _aliases(record: StudyRecord, trial: TrialRecord) -> list[str]:
    return [alias for alias, number in record.aliases.items() if number == trial.number]
