"""A study in an MLflow store: one parent run, one child per trial. Only this file writes runs, from one thread."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lethe.records import StudyRecord, TrialRecord
from lethe.tracking.connection import artifact_root, quiet_mlflow
from lethe.tracking.mlflow_tracker import (
    STATUS,
    Numbers,
    TrackedTrial,
    TrackedTrials,
    clip_text,
    flatten_settings,
    last_numbers,
    now_ms,
    numeric_metrics,
)

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

PARENT = "mlflow.parentRunId"
ENDED = ("FINISHED", "KILLED", "FAILED")
MOST_METRICS, MOST_PARAMS, MOST_RUNS = 800, 100, 50_000  # per call; a batch holds 1000 entries of all kinds


class MlflowStore:
    """Connecting imports MLflow: seconds. `entries` is shared with the tracker, which adds to it."""

    def __init__(self, uri: str, experiment: str, record: StudyRecord, entries: TrackedTrials) -> None:
        quiet_mlflow()
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # where something else imported MLflow first
            logging.getLogger(name).setLevel(logging.ERROR)
        self.client = MlflowClient(tracking_uri=uri)
        self.study = record.id
        self.experiment = self._experiment(experiment, artifact_root(uri))
        self.parent = self._open(record, entries)

    def _experiment(self, name: str, root: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=root)
            except MlflowException:  # another study was faster
                if (found := self.client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _open(self, record: StudyRecord, entries: TrackedTrials) -> str:
        """The parent run, made or continued; the trials that the store knows become entries."""
        of_study = f"tags.`lethe.study` = '{record.id}'"
        runs = self.client.search_runs([self.experiment], of_study, max_results=MOST_RUNS, order_by=["start_time ASC"])
        parents = [run for run in runs if PARENT not in run.data.tags]
        parent = parents[0].info.run_id if parents else self._create_parent(record)
        if not (parents and parents[0].data.params):
            self._describe(parent, record)
        for run in runs:
            if run.data.tags.get(PARENT) == parent:
                self._recognise(run, entries)
        if parents:
            self.client.update_run(parent, status="RUNNING")
        return parent

    def _create_parent(self, record: StudyRecord) -> str:
        tags = {"lethe.study": record.id, "lethe.space": record.space}
        tags |= {f"lethe.digest.{name}": digest for name, digest in record.digests.items() if digest}
        start = int(record.began * 1000) or None
        return self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=record.id).info.run_id

    def _describe(self, parent: str, record: StudyRecord) -> None:
        """The configuration, once; parameters last, since their presence says that this was done."""
        self.client.log_text(parent, record.model_dump_json(indent=1), "study.json")
        note = {"mlflow.note.content": _description(record)}
        self._log(parent, _metrics(_references(record), 0, now_ms()), dict(flatten_settings(record.study)), note)

    def _recognise(self, run: Run, entries: TrackedTrials) -> None:
        """What the store already holds of a trial."""
        tags, metrics = run.data.tags, run.data.metrics
        told = tags.get("verdict") if run.info.status in ENDED else None
        entry = entries.stored(tags["lethe.run"], int(tags["lethe.trial"]), unfinished=told in (None, "interrupted"))
        rank = metrics.get("pareto_rank")
        steps = self.client.get_metric_history(run.info.run_id, "epoch") if "epoch" in metrics else ()
        entry.sent |= {metric.step for metric in steps}
        entry.marks = (None if rank is None else int(rank), tags.get("front") == "true")
        entry.run_id, entry.introduced = run.info.run_id, bool(run.data.params) or not entry.params
        entry.reopen = entry.began_ms > 0 and entry.end is None
        entry.told = None if entry.reopen else told

    def send(self, entry: TrackedTrial) -> None:
        """Tell the store what it does not know yet of one trial."""
        if entry.run_id is None:
            # An answer may have got lost on its way: the store has a run then that we do not know.
            found, entry.asked = self._find_child(entry) if entry.asked else None, True
            entry.run_id = found or self._create_child(entry)
        elif entry.reopen:
            self.client.update_run(entry.run_id, status="RUNNING", name=_name(entry))
            entry.reopen = False
        end = entry.end if entry.ending else None  # before the reports: an end comes after the last of them
        reports = {epoch: report for epoch, report in list(entry.reports.items()) if epoch not in entry.sent}
        metrics = [m for epoch, report in reports.items() for m in _metrics(report.metrics, epoch, report.at_ms)]
        if end:
            epoch, values = last_numbers(end)
            metrics += _metrics(values, epoch, int(end.ended * 1000) or now_ms())
        params = {} if entry.introduced else entry.params
        self._log(entry.run_id, metrics, params, _end_tags(end) if end else {})
        entry.introduced = True
        entry.sent |= reports.keys()
        if end:
            self._end(entry.run_id, STATUS.get(end.verdict, "FAILED"), end.ended)
            entry.told = end.verdict

    def _find_child(self, entry: TrackedTrial) -> str | None:
        wanted = {"lethe.study": self.study, "lethe.run": entry.run, "lethe.trial": str(entry.number)}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        found = self.client.search_runs([self.experiment], query, max_results=1)
        return found[0].info.run_id if found else None

    def _create_child(self, entry: TrackedTrial) -> str:
        tags = {"lethe.study": self.study, "lethe.run": entry.run, "lethe.trial": str(entry.number)}
        began = int(entry.end.began * 1000) if entry.end else entry.began_ms
        run = self.client.create_run(
            self.experiment,
            start_time=began or None,
            tags=tags | {PARENT: self.parent},
            run_name=_name(entry),
        )
        return run.info.run_id

    def mark(self, entry: TrackedTrial, rank: int | None, on_front: bool) -> None:
        """A trial's place among the others, which later trials change."""
        if entry.run_id is None or entry.marks == (rank, on_front):
            return
        metrics = {} if rank is None else {"pareto_rank": float(rank)}
        tags = {"front": str(on_front).lower()} if on_front or entry.marks[1] else {}
        self._log(entry.run_id, _metrics(metrics, 0, now_ms()), tags=tags)
        entry.marks = (rank, on_front)

    def add(self, entry: TrackedTrial, trial: TrialRecord) -> None:
        """What was measured on a front member when the search was over; what the store has is not sent again."""
        values = numeric_metrics(trial.afterwards)
        if entry.run_id is None or not (values or trial.confirmation):
            return
        known = self.client.get_run(entry.run_id).data.metrics
        new = {key: value for key, value in values.items() if known.get(key) != value}
        tags = {"confirmed": str(trial.confirmation.confirmed).lower()} if trial.confirmation else {}
        self._log(entry.run_id, _metrics(new, 0, now_ms()), tags=tags)

    def abandon(self, entry: TrackedTrial) -> None:
        """A run that a killed driver left running, and that this study did not take up again."""
        if entry.run_id is not None and entry.told is None:
            self._log(entry.run_id, tags={"verdict": "interrupted"})
            self._end(entry.run_id, "KILLED", 0.0)

    def close(self, record: StudyRecord, folder: str) -> None:
        """The study's own numbers and its report."""
        note = {"mlflow.note.content": _description(record)}
        self._log(self.parent, _metrics(_totals(record), 0, now_ms()), tags=note)
        self.client.log_artifacts(self.parent, folder, "report")
        self._end(self.parent, "KILLED" if record.interrupted else "FINISHED", record.ended)

    def _end(self, run_id: str, status: str, ended: float) -> None:
        self.client.set_terminated(run_id, status=status, end_time=int(ended * 1000) or None)

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] = MappingProxyType({}),
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        from mlflow.entities import Param, RunTag

        settings = [Param(key, clip_text(value)) for key, value in params.items()]
        labels = [RunTag(key, clip_text(value)) for key, value in tags.items()]
        while metrics or settings or labels:
            self.client.log_batch(run_id, metrics[:MOST_METRICS], settings[:MOST_PARAMS], labels, synchronous=True)
            metrics, settings, labels = metrics[MOST_METRICS:], settings[MOST_PARAMS:], []


def _metrics(values: Numbers, step: int, at_ms: int) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(key, value, at_ms, step) for key, value in values.items()]


def _name(entry: TrackedTrial) -> str:
    repeat = entry.end is not None and entry.end.kind == "confirmation"
    return f"trial-{entry.number:03d}" + (f"-seed-{entry.params.get('seed')}" if repeat else "")


def _end_tags(end: TrialRecord) -> dict[str, str]:
    tags = {"verdict": end.verdict, "reason": end.reason, "lethe.trial": str(end.number), "lethe.folder": end.folder}
    tags["kind"] = end.kind
    return {key: value for key, value in tags.items() if value}


def _references(record: StudyRecord) -> Numbers:
    """The scores of the models that the study starts from and compares with."""
    scores = {"start": record.start, "oracle": record.oracle}
    found = {name: model.metrics for name, model in scores.items() if model}
    return numeric_metrics(
        {f"{name}.{key}": value for name, metrics in found.items() for key, value in metrics.items()}
    )


def _totals(record: StudyRecord) -> Numbers:
    verdicts = Counter(f"trials.{trial.verdict}" for trial in record.trials)
    totals = {"trials": len(record.trials), "front_size": len(record.front), "hypervolume": record.hypervolume}
    return numeric_metrics(verdicts | totals)


def _description(record: StudyRecord) -> str:
    """What MLflow's page shows above a run's numbers."""
    goals = " and ".join(f"{goal.direction} `{goal.metric}`" for goal in record.objectives)
    lines = [f"Study **{record.space}** `{record.id}`: {goals}."]
    if record.trials:
        lines.append(f"{len(record.trials)} trials, {len(record.front)} on the Pareto front; see `report/report.html`.")
    lines += [f"- {alias}: trial {number}" for alias, number in record.aliases.items()]
    return "\n\n".join(lines)
