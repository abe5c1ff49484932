"""One session of a study: score the baselines, search, then confirm and audit the front."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from lethe.records import ModelScores, StudyRecord, TrialRecord
from lethe.search.front import (
    aliases_of_means,
    front_aliases,
    front_hypervolume,
    hypervolume_of_means,
    spread_members,
)
from lethe.search.importance import importances
from lethe.search.objectives import ObjectiveSpace
from lethe.search.storages import storage_url
from lethe.search.study_store import StudyStore
from lethe.search.verdict import with_verdicts
from lethe.storage.paths import atomic_write
from lethe.study.baselines import baselines, known
from lethe.study.recorder import Recorder
from lethe.study.run_requests import Planner, opening_record, write_first
from lethe.study.session import Session

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool


class Sweep(Planner):
    """One session of a study: runs what is left of it."""

    def run(self, session: Session) -> StudyRecord:
        """Run all remaining trials, then confirm and audit the front, and return the final record, which is also in
        `study.json`. Ctrl-C ends it early with what is finished."""
        record, objectives = self._searched(session)
        if not (self.study.confirm or self.study.audits):
            return self._written(record)
        from lethe.study.after_search import finish
        from lethe.study.confirmation import front_members

        members = spread_members(record.front, objectives, self.study.most_members())
        front = list(front_members(self, self.study, members))
        record = finish(self, session.pool(), record, [front], objectives)
        if any(trial.confirmation for trial in record.trials):
            record = record.model_copy(
                update={
                    "aliases": aliases_of_means(record.trials, objectives) or record.aliases,
                    "confirmed_hypervolume": hypervolume_of_means(record.trials, objectives),
                }
            )
        return self._written(record)

    def search(self, session: Session) -> StudyRecord:
        """Run all remaining trials and return their record, which is also in `study.json`, with neither fresh seeds nor
        audits: a comparison asks for those of its arms when all searches are over."""
        return self._written(self._searched(session)[0])

    def _searched(self, session: Session) -> tuple[StudyRecord, ObjectiveSpace]:
        began = time.time()
        shutil.rmtree(self.folder / "tune", ignore_errors=True)
        pool, start, oracle = self.begin(session)
        store = StudyStore(self.study, storage_url(self.study.search), self.id)
        objectives = store.freeze(start.metrics)
        record = opening_record(self.id, self.study, self.prepared, objectives, start, oracle, began)
        self.tracker.begin(record)
        write_first(record, self.folder)
        return with_verdicts(self._search(pool, store, record), self.study.criteria()), objectives

    def _written(self, record: StudyRecord) -> StudyRecord:
        atomic_write(self.folder / "study.json", record.model_dump_json(indent=1))
        return record

    def begin(self, session: Session) -> tuple[Pool, ModelScores, ModelScores | None]:
        """Return the pool, and the scores of start model and oracle, which are measured once, with the audits that the
        objectives need."""
        with nullcontext() if session.ready else self.console.status(f"{self.id}: starting worker groups"):
            pool = session.pool()
        pool.log_to(self.scores_folder)
        what = "start model and oracle" if self.prepared.oracle else "the start model"
        quick = known(self.study, self.prepared, self.scores_folder)
        with nullcontext() if quick else self.console.status(f"scoring {what}"):
            scores = baselines(self.study, self.prepared, self.assets(), pool, self.scores_folder)
        from lethe.study.auditing import with_reference_audits

        return pool, *with_reference_audits(self, pool, *scores)

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
