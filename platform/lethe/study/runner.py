"""A study from its configuration to its report: prepare, score the baselines, search, register, report."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.config.benchmark import AnyBenchmark
from lethe.config.model import EmbeddedModel
from lethe.config.run import Recipe, UnlearnRun
from lethe.config.study import Study
from lethe.errors import StudyBrokenError
from lethe.records import ModelScores, Scalar, StudyRecord, TrialRecord
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
from lethe.study.recorder import Recorder, read_result
from lethe.study.session import Session
from lethe.tracking.tracker import Tracker
from lethe.unlearning.requests import Assets

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool

DATA = ("*.json", "*.jsonl")
UNLEARN = "lethe.unlearning.worker_entry:run_trial"


@dataclass
class Sweep:
    """One session of a study. `folder` is the study's home: what lies there is continued.

    A comparison's members keep the scores of start model and oracle together, in `yardsticks`, and say in `labels`
    whose trials theirs are.
    """

    study: Study
    id: str
    prepared: Prepared
    tracker: Tracker
    console: Console
    folder: Path
    yardsticks: Path | None = None
    labels: dict[str, Scalar] = field(default_factory=dict)

    def run(self, session: Session) -> StudyRecord:
        """All remaining trials, then the final record. Ctrl-C ends it early with what is finished."""
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
        """The warm groups, and the scores of start model and oracle, measured once."""
        with nullcontext() if session.ready else self.console.status(f"{self.id}: starting worker groups"):
            pool = session.pool()
        what = "start model and oracle" if self.prepared.oracle else "the start model"
        quick = known(self.study, self.prepared, self._yardsticks)
        with nullcontext() if quick else self.console.status(f"scoring {what}"):
            return pool, *baselines(self.study, self.prepared, self._assets(), pool, self._yardsticks)

    @property
    def _yardsticks(self) -> Path:
        return self.yardsticks or self.folder

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
        model, base = self.study.model, self.prepared.base
        return model if isinstance(model, EmbeddedModel) else base and str(base)

    # The search

    def _search(self, pool: Any, store: StudyStore, record: StudyRecord) -> StudyRecord:
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
        """What the study wants done to its front. Ctrl-C ends it; what has ended is kept and found by --resume."""
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

    def config(self, number: int, recipe: Recipe) -> dict[str, Any]:
        """What a Tune trial carries for one proposal."""
        from lethe.pool.resources import Shape

        run = UnlearnRun(recipe=recipe, digests=self.prepared.digests)
        folder = self.folder / "runs" / run.digest()
        return {
            "number": number,
            "run": run.digest(),
            "params": {**self.labels, **flatten(recipe)},
            "shape": Shape.of(recipe.engine).key,
            "payload": {
                "entry": UNLEARN,
                "run": run.model_dump(mode="json"),
                "assets": self._assets().model_dump(mode="json"),
                "truth": truth_file(self._yardsticks),
                "folder": str(folder),
                "checkpoint": self.study.resources.checkpoint.model_dump(mode="json"),
            },
        }

    def stored(self, config: dict[str, Any]) -> TrialRecord | None:
        """The result of an equal run of this study, if there is one."""
        return read_result(Path(config["payload"]["folder"]))

    def _finished(self, store: StudyStore) -> tuple[TrialRecord, ...]:
        """Records of the trials that earlier sessions told Optuna about."""
        found = []
        for trial in store.trials():
            path = self.folder / "runs" / trial.user_attrs.get("run", "none") / "result.json"
            if path.exists():
                record = TrialRecord.model_validate_json(path.read_text())
                here = {"number": trial.user_attrs["index"], "folder": str(path.parent)}
                found.append(record.model_copy(update=here))
        return tuple(found)


def absolute(benchmark: AnyBenchmark, digest: str) -> AnyBenchmark:
    """Workers run elsewhere: a folder's name has to be whole, and one that they find."""
    folder = Path(benchmark.source).expanduser()
    if not folder.is_dir():
        return benchmark
    folder = share_with_nodes(folder.resolve(), "benchmarks", digest, DATA)
    return benchmark.model_copy(update={"source": str(folder)})
