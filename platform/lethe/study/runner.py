"""One session of a study: score the baselines, search, then confirm and audit the front."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.config.audits import Audits
from lethe.config.benchmark import AnyBenchmark
from lethe.config.model import EmbeddedModel
from lethe.config.run import Recipe, UnlearnRun
from lethe.config.study import Study
from lethe.errors import StudyBrokenError
from lethe.pool.event_log import log_folder
from lethe.pool.messages import EntryPoint, Job
from lethe.pool.resources import Shape
from lethe.records import Metrics, ModelScores, Scalar, StudyRecord, TrialRecord
from lethe.reporting.console import Console
from lethe.search.importance import importances
from lethe.search.objectives import ObjectiveSpace, front_aliases, front_hypervolume, objective_records
from lethe.search.space import flatten
from lethe.search.storages import storage_url
from lethe.search.study_store import StudyStore
from lethe.storage.paths import atomic_write, home
from lethe.storage.replica import share_with_nodes
from lethe.study.baselines import baselines, known, truth_file
from lethe.study.preparation import Prepared
from lethe.study.recorder import Recorder, TrialPlan, read_result
from lethe.study.session import Session
from lethe.tracking.tracker import Tracker
from lethe.unlearning.requests import Assets, AuditRequest, TrialRequest

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool

DATA = ("*.json", "*.jsonl")


@dataclass
class Sweep:
    """One session of a study. `folder` is the study's home: what lies there is continued.

    A comparison's members share the scores of start model and oracle, in its own folder, `baselines_folder`, and name
    themselves in the `labels` of their trials.
    """

    study: Study
    id: str
    prepared: Prepared
    tracker: Tracker
    console: Console
    folder: Path
    baselines_folder: Path | None = None
    labels: dict[str, Scalar] = field(default_factory=dict)

    def run(self, session: Session) -> StudyRecord:
        """Run all remaining trials and return the final record, which is also in `study.json`. Ctrl-C ends it early
        with what is finished."""
        began = time.time()
        shutil.rmtree(self.folder / "tune", ignore_errors=True)
        pool, start, oracle = self.begin(session)
        store = StudyStore(self.study, storage_url(self.study.search), self.id)
        objectives = store.freeze(start.metrics)
        record = StudyRecord(
            id=self.id,
            space=self.study.name,
            study=self.study.model_dump(mode="json"),
            objectives=objective_records(objectives),
            digests=self.prepared.digests.model_dump(),
            start=start,
            oracle=oracle,
            start_folder=str(self.prepared.start),
            began=began,
        )
        self.tracker.begin(record)
        record = self._finish(pool, self._search(pool, store, record), objectives)
        atomic_write(self.folder / "study.json", record.model_dump_json(indent=1))
        return record

    def begin(self, session: Session) -> tuple[Pool, ModelScores, ModelScores | None]:
        """Return the pool, and the scores of start model and oracle, which are measured once."""
        with nullcontext() if session.ready else self.console.status(f"{self.id}: starting worker groups"):
            pool = session.pool()
        pool.log_to(self._baselines_folder)
        what = "start model and oracle" if self.prepared.oracle else "the start model"
        quick = known(self.study, self.prepared, self._baselines_folder)
        with nullcontext() if quick else self.console.status(f"scoring {what}"):
            return pool, *baselines(self.study, self.prepared, self._assets(), pool, self._baselines_folder)

    @property
    def _baselines_folder(self) -> Path:
        return self.baselines_folder or self.folder

    def _assets(self) -> Assets:
        return Assets(
            benchmark=absolute(self.study.benchmark, self.prepared.digests.data),
            data_digest=self.prepared.digests.data,
            model_digest=self.prepared.digests.model,
            start=str(self.prepared.start),
            origin=self._origin(),
            cache=str(home() / "cache"),
            device=self.study.first_recipe().engine.device,
        )

    def _origin(self) -> EmbeddedModel | str | None:
        """Return what the start model was made from, None where that is unknown."""
        model, base = self.study.model, self.prepared.base
        if isinstance(model, EmbeddedModel):
            return model
        return None if base is None else str(base)

    # The search

    def _search(self, pool: Pool, store: StudyStore, record: StudyRecord) -> StudyRecord:
        from lethe.study.tune_loop import tune_study

        objectives = store.objectives
        recorder = Recorder(pool.queue, self.tracker, objectives, lambda ended: self.console.trial(recorder, ended))
        recorder.take_up(self._finished(store))
        self.console.begin(record, recorder, store.remaining(self.study.search.trials), self.labels)
        interrupted = tune_study(self, pool, store, recorder)
        trials = tuple(recorder.trials[n] for n in sorted(recorder.trials))
        return record.model_copy(
            update={
                "trials": trials,
                "aliases": front_aliases(trials, objectives),
                "hypervolume": front_hypervolume(trials, objectives),
                "importance": importances(store),
                "ended": time.time(),
                "interrupted": interrupted,
            }
        )

    def _finish(self, pool: Pool, record: StudyRecord, objectives: ObjectiveSpace) -> StudyRecord:
        """Return the record with the confirmations and audits that the study asks for. Ctrl-C ends them; what has ended
        is kept and found by --resume."""
        from lethe.pool.jobs import interruptible
        from lethe.study.auditing import audit
        from lethe.study.confirmation import confirm

        if record.interrupted or not (record.front and (self.study.confirm or self.study.audits)):
            return record
        try:
            with interruptible():
                if self.study.confirm:
                    record = confirm(self, pool, record, objectives)
                if self.study.audits:
                    record = audit(self, pool, record)
        except KeyboardInterrupt:
            record = record.model_copy(update={"interrupted": True})
        except StudyBrokenError as error:  # no group can be had any more: the search is over, and its result is kept
            self.console.warn(f"the front is neither confirmed nor audited to the end: {error}")
            record = record.model_copy(update={"interrupted": True})
        return record.model_copy(update={"ended": time.time()})

    def plan(self, number: int, recipe: Recipe) -> TrialPlan:
        """Return the plan of trial `number` with this recipe. Number and folder do not enter its run's digest."""
        run = UnlearnRun(recipe=recipe, digests=self.prepared.digests)
        folder = self.folder / "runs" / run.digest()
        request = TrialRequest(
            run=run,
            assets=self._assets(),
            truth=truth_file(self._baselines_folder),
            folder=folder,
            checkpoint=self.study.resources.checkpoint,
        )
        shape, logs = Shape.of(recipe.engine), log_folder(self._baselines_folder)
        job = Job.of(run.digest(), EntryPoint.TRIAL, request, shape, logs)
        return TrialPlan(number, {**self.labels, **flatten(recipe)}, folder, job)

    def audit_request(self, audits: Audits, recipe: Recipe, model: Path, metrics: Metrics) -> AuditRequest:
        """Return the request of one audit of the model in the folder `model`, which was trained with `recipe`."""
        return AuditRequest(
            audits=audits,
            assets=self._assets(),
            recipe=recipe,
            model=model,
            truth=truth_file(self._baselines_folder),
            metrics=metrics,
        )

    def stored(self, plan: TrialPlan) -> TrialRecord | None:
        """Return the result of an equal run of this study, None if there is none."""
        return read_result(plan.folder)

    def _finished(self, store: StudyStore) -> tuple[TrialRecord, ...]:
        """Return the records of the trials that earlier sessions told Optuna about."""
        records = []
        for trial in store.trials():
            path = self.folder / "runs" / trial.user_attrs.get("run", "none") / "result.json"
            if path.exists():
                record = TrialRecord.model_validate_json(path.read_text())
                changes = {"number": trial.user_attrs["index"], "folder": str(path.parent)}
                records.append(record.model_copy(update=changes))
        return tuple(records)


def absolute(benchmark: AnyBenchmark, digest: str) -> AnyBenchmark:
    """Return `benchmark` with the absolute path of a source that is a folder, shared with the nodes where workers run.

    `digest`: of the data. A source that is no folder stays as it is.
    """
    folder = Path(benchmark.source).expanduser()
    if not folder.is_dir():
        return benchmark
    folder = share_with_nodes(folder.resolve(), "benchmarks", digest, DATA)
    return benchmark.model_copy(update={"source": str(folder)})
