"""A study in an MLflow store: one parent run, below it a run per trial, and one each for start model and oracle.

Only this file writes runs, from one thread; `mlflow_pages` has the texts that persons read.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from lethe.records import Metrics, ModelScores, StudyRecord, TrialRecord, Verdict
from lethe.storage.files import make_once
from lethe.tracking import mlflow_pages as pages
from lethe.tracking.connection import artifact_root, quiet_mlflow, sqlite_path
from lethe.tracking.tracked_trials import (
    Marks,
    TrackedTrial,
    TrackedTrials,
    clip_text,
    flatten_settings,
    now_ms,
    numeric_metrics,
    unreported_metrics,
    verdict_tags,
)

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Run

PARENT = "mlflow.parentRunId"
ENDED = ("FINISHED", "KILLED", "FAILED")
# MLflow has one word for a run that failed and one for a run that was ended from outside.
STATUS: dict[Verdict, str] = {"complete": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}
MOST_METRICS, MOST_PARAMS, MOST_RUNS = 800, 100, 50_000  # per call; a batch holds 1000 entries of all kinds


class MlflowStore:
    """The runs of one study: `experiment` and `parent` are the ids of MLflow's experiment and of the parent run."""

    def __init__(self, uri: str, experiment: str, record: StudyRecord, trials: TrackedTrials) -> None:
        """Connect to the store at `uri`, which imports MLflow: seconds. Open the study, and note in `trials`, which is
        shared with the tracker, what the store has of them."""
        quiet_mlflow()
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # where something else imported MLflow first
            logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are raised as well
        if uri.startswith("sqlite:"):
            make_once(sqlite_path(uri), partial(_make_database, str(artifact_root(uri))))
        self.client = MlflowClient(tracking_uri=uri)
        self.study, self.space = record.id, record.space
        self._references: dict[str, str] = {}  # ids of the runs of start model and oracle
        self.experiment = self._experiment(experiment, artifact_root(uri))
        self.parent = self._open(record, trials)

    def _experiment(self, name: str, root: str | None) -> str:
        """Return the id of the experiment `name`, created or restored if need be."""
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=root))
            except MlflowException:  # another study was faster
                if (experiment := self.client.get_experiment_by_name(name)) is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _open(self, record: StudyRecord, trials: TrackedTrials) -> str:
        """Create the parent run, or continue it and note what the store has of its trials; return its id."""
        of_study = f"tags.`lethe.study` = '{record.id}'"
        runs = self.client.search_runs([self.experiment], of_study, max_results=MOST_RUNS, order_by=["start_time ASC"])
        parents = [run for run in runs if PARENT not in run.data.tags]
        parent = str(parents[0].info.run_id) if parents else self._create_parent(record)
        if not (parents and parents[0].data.params):
            self._describe(parent, record)
        for run in runs:
            if run.data.tags.get(PARENT) == parent and "lethe.run" in run.data.tags:
                self._recognise(run, trials)
            elif run.data.tags.get("kind") in ("start", "oracle"):
                self._references[run.data.tags["kind"]] = run.info.run_id
        self._send_references(parent, record)
        self.client.set_experiment_tag(self.experiment, pages.VIEW + record.id, pages.study_view(record))
        self.client.set_experiment_tag(self.experiment, pages.VIEW + record.space, pages.space_view(record))
        if parents:
            self.client.update_run(parent, status="RUNNING")
        return parent

    def _create_parent(self, record: StudyRecord) -> str:
        tags = {"lethe.study": record.id, "lethe.space": record.space}
        tags |= {f"lethe.digest.{name}": digest for name, digest in record.digests.items() if digest}
        start = int(record.began * 1000) or None
        return str(self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=record.id).info.run_id)

    def _describe(self, parent: str, record: StudyRecord) -> None:
        """Log the study's configuration, once. Parameters come last: that they are there says that this was done."""
        self.client.log_text(parent, record.model_dump_json(indent=1), "study.json")
        self.client.log_inputs(parent, [_dataset(record)])
        note = {pages.NOTE: pages.study_note(record, self.experiment, parent, {})}
        self._log(parent, params=dict(flatten_settings(record.study)), tags=note)

    def _send_references(self, parent: str, record: StudyRecord) -> None:
        """Send what the store lacks of start model and oracle: a run each, with its scores and those of its audits."""
        models: dict[str, ModelScores | None] = {"start": record.start, "oracle": record.oracle}
        for kind, model in models.items():
            if model is None or not model.metrics:
                continue
            if kind not in self._references:
                tags = {"lethe.study": record.id, "lethe.space": record.space, PARENT: parent, "kind": kind}
                tags |= {pages.NOTE: pages.reference_note(kind, record), pages.COLOR: pages.COLORS[kind]}
                began = int(record.began * 1000) or None
                run = self.client.create_run(self.experiment, start_time=began, tags=tags, run_name=f"{kind} model")
                self.client.log_inputs(run.info.run_id, [_dataset(record)])
                self._references[kind] = run.info.run_id
            run_id = self._references[kind]
            known = self.client.get_run(run_id).data.metrics
            new = {key: value for key, value in _scores(kind, model, record).items() if key not in known}
            self._log(run_id, _metrics(new, 0, now_ms()))
            self._terminate(run_id, "FINISHED", record.began)

    def _recognise(self, run: Run, trials: TrackedTrials) -> None:
        """Note in the tracked trial of `run` what the store has of it."""
        tags, metrics = run.data.tags, run.data.metrics
        verdict = _verdict(tags.get("verdict")) if run.info.status in ENDED else None
        unfinished = verdict in (None, "interrupted")
        trial = trials.get_stored(tags["lethe.run"], int(tags["lethe.trial"]), unfinished)
        rank = metrics.get("pareto_rank")
        steps = self.client.get_metric_history(run.info.run_id, "epoch") if "epoch" in metrics else ()
        trial.sent_epochs |= {metric.step for metric in steps}
        trial.stored_marks = Marks(None if rank is None else int(rank), tags.get("front") == "true")
        trial.run_id, trial.params_logged = run.info.run_id, bool(run.data.params) or not trial.params
        trial.reopen = trial.began_ms > 0 and trial.end is None
        trial.stored_verdict = None if trial.reopen else verdict
        trial.stored_name = str(run.info.run_name)

    def send(self, trial: TrackedTrial) -> None:
        """Send what the store lacks of a trial: its run, parameters, reports and end."""
        if trial.run_id is None:
            # An answer may have been lost on its way: the store then has a run that we do not know.
            existing = self._find_child(trial) if trial.create_attempted else None
            trial.create_attempted = True
            trial.run_id = existing or self._create_child(trial)
        elif trial.reopen:
            self.client.update_run(trial.run_id, status="RUNNING", name=_run_name(trial))
            trial.reopen, trial.stored_name = False, _run_name(trial)
        # The end is read before the reports: no report comes after it.
        end = trial.end if trial.end_is_unsent else None
        reports = {epoch: report for epoch, report in list(trial.reports.items()) if epoch not in trial.sent_epochs}
        metrics = [m for epoch, report in reports.items() for m in _metrics(report.metrics, epoch, report.at_ms)]
        if end:
            epoch, values = unreported_metrics(end)
            metrics += _metrics(values, epoch, int(end.ended * 1000) or now_ms())
        params = {} if trial.params_logged else trial.params
        self._log(trial.run_id, metrics, params, _end_tags(end) if end else {})
        trial.params_logged = True
        trial.sent_epochs |= reports.keys()
        if end:
            self._terminate(trial.run_id, STATUS.get(end.verdict, "FAILED"), end.ended)
            trial.stored_verdict = end.verdict

    def _child_tags(self, trial: TrackedTrial) -> dict[str, str]:
        """Return the tags by which a trial's run is found."""
        return {"lethe.study": self.study, "lethe.run": trial.run, "lethe.trial": str(trial.number)}

    def _find_child(self, trial: TrackedTrial) -> str | None:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in self._child_tags(trial).items())
        runs = self.client.search_runs([self.experiment], query, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _create_child(self, trial: TrackedTrial) -> str:
        began = int(trial.end.began * 1000) if trial.end else trial.began_ms
        run = self.client.create_run(
            self.experiment,
            start_time=began or None,
            tags=self._child_tags(trial)
            | {"lethe.space": self.space, PARENT: self.parent, pages.COLOR: pages.COLORS["trial"]},
            run_name=_run_name(trial),
        )
        trial.stored_name = _run_name(trial)
        return str(run.info.run_id)

    def mark(self, trial: TrackedTrial, record: StudyRecord, found: TrialRecord) -> None:
        """Send a trial's Pareto rank and whether it is on the front, unless the store has them, and name its run."""
        rank, on_front = found.pareto_rank, found.on_front
        if trial.run_id is None:
            return
        if trial.stored_marks != (rank, on_front):
            metrics = {} if rank is None else {"pareto_rank": float(rank)}
            tags = {"front": str(on_front).lower()} if on_front or trial.stored_marks.on_front else {}
            self._log(trial.run_id, _metrics(metrics, 0, now_ms()), tags=tags)
            trial.stored_marks = Marks(rank, on_front)
        name = pages.front_name(record, found) if on_front else _run_name(trial)
        if name != trial.stored_name:
            self.client.update_run(trial.run_id, name=name)
            self._log(trial.run_id, tags={pages.COLOR: pages.front_color(record, found)})
            trial.stored_name = name

    def describe_front_member(
        self, trial: TrackedTrial, record: StudyRecord, found: TrialRecord, version: str, model: str
    ) -> None:
        """Send a front member's description and the data that it was trained on."""
        if trial.run_id is None:
            return
        note = pages.front_note(record, found, self.experiment, self.parent, version, model)
        self._log(trial.run_id, tags={pages.NOTE: note})
        self.client.log_inputs(trial.run_id, [_dataset(record)])

    def add_afterwards(self, trial: TrackedTrial, record: TrialRecord) -> None:
        """Send what confirmation and audits measured on a front member when the search was over, unless the store has
        it, and its verdict."""
        values = numeric_metrics(record.afterwards)
        if trial.run_id is None or not (values or record.confirmation or record.forgotten):
            return
        known = self.client.get_run(trial.run_id).data.metrics
        new = {key: value for key, value in values.items() if known.get(key) != value}
        tags = {"confirmed": str(record.confirmation.confirmed).lower()} if record.confirmation else {}
        self._log(trial.run_id, _metrics(new, 0, now_ms()), tags=tags | verdict_tags(record))

    def abandon(self, trial: TrackedTrial) -> None:
        """End, as interrupted, a run that a killed driver left running and that this study has not taken up again."""
        if trial.run_id is not None and trial.stored_verdict is None:
            self._log(trial.run_id, tags={"verdict": "interrupted"})
            self._terminate(trial.run_id, "KILLED", 0.0)

    def close(self, record: StudyRecord, folder: str, note: str) -> None:
        """Send the study's own numbers, its description `note` and the report in `folder`, and end the parent run."""
        self._send_references(self.parent, record)
        self._log(self.parent, _metrics(_totals(record), 0, now_ms()), tags={pages.NOTE: note})
        self.client.log_artifacts(self.parent, folder, "report")
        self._terminate(self.parent, "KILLED" if record.interrupted else "FINISHED", record.ended)

    def _terminate(self, run_id: str, status: str, ended: float) -> None:
        self.client.set_terminated(run_id, status=status, end_time=int(ended * 1000) or None)

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] = MappingProxyType({}),
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Log in as many calls as MLflow's limits need."""
        from mlflow.entities import Param, RunTag

        settings = [Param(key, clip_text(value)) for key, value in params.items()]
        labels = [RunTag(key, clip_text(value)) for key, value in tags.items()]
        while metrics or settings or labels:
            self.client.log_batch(run_id, metrics[:MOST_METRICS], settings[:MOST_PARAMS], labels, synchronous=True)
            metrics, settings, labels = metrics[MOST_METRICS:], settings[MOST_PARAMS:], []


def _make_database(artifacts: str, path: Path) -> None:
    """Have MLflow make its tables in the new SQLite file `path`; files of its default experiment go to `artifacts`."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore  # it has no types
    store(f"sqlite:///{path}", artifacts).engine.dispose()


def _verdict(tag: str | None) -> Verdict | None:
    """Return the verdict that a run's tag names, None without a tag or for one that is no verdict."""
    return next((verdict for verdict in get_args(Verdict) if verdict == tag), None)


def _metrics(values: Metrics, step: int, at_ms: int) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(key, value, at_ms, step) for key, value in values.items()]


def _run_name(trial: TrackedTrial) -> str:
    is_confirmation = trial.end is not None and trial.end.kind == "confirmation"
    return f"trial-{trial.number:03d}" + (f"-seed-{trial.params.get('seed')}" if is_confirmation else "")


def _end_tags(end: TrialRecord) -> dict[str, str]:
    """Return the tags of a trial's end; those without a value are left out."""
    tags = {"verdict": end.verdict, "reason": end.reason, "lethe.trial": str(end.number), "lethe.folder": end.folder}
    tags["kind"] = end.kind
    return {key: value for key, value in tags.items() if value}


def _scores(kind: str, model: ModelScores, record: StudyRecord) -> Metrics:
    """Return the scores of start model or oracle, those of its audits, and `training_loss` and `training_minutes`
    where lethe trained it."""
    values = model.numbers
    if training := record.trainings.get(kind):
        values |= {"training_loss": training.loss, "training_minutes": training.seconds / 60}
    return numeric_metrics(values)


def _dataset(record: StudyRecord) -> DatasetInput:
    """Return the study's data as an input of a run: name and digest, no rows and no paths."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest, source = record.digests.get("data") or "unknown", json.dumps({"benchmark": record.data_name})
    dataset = Dataset(record.data_name, digest, source_type="lethe", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "unlearning")])


def _totals(record: StudyRecord) -> Metrics:
    """Return the study's counts of trials, in all and by verdict, the size of its front, and its hypervolume."""
    verdicts = Counter(f"trials.{trial.verdict}" for trial in record.trials)
    totals = {"trials": len(record.trials), "front_size": len(record.front), "hypervolume": record.hypervolume}
    return numeric_metrics(verdicts | totals)
