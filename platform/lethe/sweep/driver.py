"""A study from its configuration to its report: prepare, score the baselines, search, register, report."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe.config.benchmark import TofuBenchmark
from lethe.config.run import Recipe, UnlearnRun
from lethe.config.study import Study
from lethe.errors import BadInput
from lethe.models.prepare import Prepared
from lethe.records import ModelScores, Sample, StudyRecord, TrialRecord
from lethe.search.front import front_hypervolume, mark_front, name_front, objectives
from lethe.search.optuna_study import StudyStore
from lethe.search.space import flatten
from lethe.storage import atomic_write, home
from lethe.sweep.console import Console
from lethe.sweep.recorder import Recorder, numbers, read_result
from lethe.tracking.tracker import Tracker
from lethe.training.assets import Assets

UNLEARN = "lethe.training.entry:execute"
BASELINE = "lethe.training.entry:baseline"
RECYCLE_STAGE_3 = 20  # runs; DeepSpeed 0.19 keeps about 25 MB of every stage 3 engine


@dataclass
class Sweep:
    """One session of a study. `folder` is the study's home: what lies there is continued."""

    study: Study
    id: str
    prepared: Prepared
    tracker: Tracker
    console: Console
    folder: Path

    def run(self) -> StudyRecord:
        """All remaining trials, then the final record. Ctrl-C ends it early with what is finished."""
        import ray

        from lethe.pool.groups import Pool
        from lethe.pool.shape import Shape

        began = time.time()
        for kind in ("groups", "tune"):
            shutil.rmtree(self.folder / kind, ignore_errors=True)
        resources = self.study.resources
        engine = self.study.first_recipe().engine
        recycle = resources.recycle_after or (RECYCLE_STAGE_3 if engine.stage == 3 else None)
        pool = Pool(self.folder / "groups", recycle_after=recycle, max_groups=resources.groups)
        try:
            shape = Shape.of(engine)
            pool.warm(shape)
            start, oracle = self._baselines(pool, shape)
            store = StudyStore(self.study, f"sqlite:///{home() / 'optuna.db'}", self.id)
            frame = store.freeze(start.metrics)
            record = StudyRecord(
                id=self.id,
                space=self.study.name,
                study=self.study.model_dump(mode="json"),
                objectives=objectives(frame),
                digests=self.prepared.digests.model_dump(),
                start=start,
                oracle=oracle,
                start_folder=str(self.prepared.start),
                began=began,
            )
            self.tracker.begin(record)
            record = self._search(pool, store, record)
        finally:
            try:
                pool.close()
            finally:
                ray.shutdown()
        atomic_write(self.folder / "study.json", record.model_dump_json(indent=1))
        return record

    # Baselines

    def _baselines(self, pool: Any, shape: Any) -> tuple[ModelScores, ModelScores | None]:
        """Scores of oracle and start model; they fix the floors, so a resumed study reads them back."""
        path = self.folder / "baselines.json"
        if path.exists():
            stored = json.loads(path.read_text())
            oracle = stored["oracle"] and ModelScores.model_validate(stored["oracle"])
            return ModelScores.model_validate(stored["start"]), oracle
        oracle_scores = None
        if self.prepared.oracle is not None:
            with self.console.status("scoring the oracle"):
                report = self._score(pool, shape, str(self.prepared.oracle), None, is_oracle=True)
            atomic_write(self.folder / "truth.json", json.dumps(report["truth"]))
        with self.console.status("scoring the start model"):
            start_scores = _scores(self._score(pool, shape, str(self.prepared.start), self._truth()))
        if self.prepared.oracle is not None:
            # Against itself the oracle's distance is 0 by definition; its other scores stand as they are.
            oracle_scores = _scores({**report, **_SELF})
        both = {"start": start_scores.model_dump(), "oracle": oracle_scores and oracle_scores.model_dump()}
        atomic_write(path, json.dumps(both))
        return start_scores, oracle_scores

    def _score(self, pool: Any, shape: Any, model: str, truth: str | None, is_oracle: bool = False) -> dict[str, Any]:
        import ray

        recipe = self.study.first_recipe()
        payload = {
            "entry": BASELINE,
            "assets": self._assets().model_dump(mode="json"),
            "evaluation": recipe.evaluation.model_dump(mode="json"),
            "model": model,
            "truth": truth,
            "is_oracle": is_oracle,
        }
        name = f"baseline:{model}"
        ray.get(pool.mailbox.submit.remote(name, payload, shape.key))
        report = pool.result(pool.mailbox.next_report.remote(name, 0))
        if report["verdict"] != "complete":
            raise BadInput(f"cannot score the model in {model}: {report.get('reason', report['verdict'])}")
        return report

    def _truth(self) -> str | None:
        path = self.folder / "truth.json"
        return str(path) if path.exists() else None

    def _assets(self) -> Assets:
        return Assets(
            benchmark=_absolute(self.study.benchmark),
            data_digest=self.prepared.digests.data,
            model_digest=self.prepared.digests.model,
            start=str(self.prepared.start),
            cache=str(home() / "cache"),
            device=self.study.first_recipe().engine.device,
        )

    # The search

    def _search(self, pool: Any, store: StudyStore, record: StudyRecord) -> StudyRecord:
        from lethe.sweep.tuning import tune_study

        frame = store.frame
        recorder = Recorder(pool.mailbox, self.tracker, frame, lambda ended: self.console.trial(recorder, ended))
        recorder.trials = {t.number: t for t in mark_front(self._finished(store), frame)}
        self.console.begin(record, recorder, store.remaining(self.study.search.trials))
        interrupted = tune_study(self, pool, store, recorder)
        trials = tuple(recorder.trials[n] for n in sorted(recorder.trials))
        return record.model_copy(
            update={
                "trials": trials,
                "aliases": name_front(trials, frame),
                "hypervolume": front_hypervolume(trials, frame),
                "ended": time.time(),
                "interrupted": interrupted,
            }
        )

    def config(self, number: int, recipe: Recipe) -> dict[str, Any]:
        """What a Tune trial carries for one proposal."""
        from lethe.pool.shape import Shape

        run = UnlearnRun(recipe=recipe, digests=self.prepared.digests)
        folder = self.folder / "runs" / run.digest()
        return {
            "number": number,
            "run": run.digest(),
            "params": flatten(recipe),
            "shape": Shape.of(recipe.engine).key,
            "payload": {
                "entry": UNLEARN,
                "run": run.model_dump(mode="json"),
                "assets": self._assets().model_dump(mode="json"),
                "truth": self._truth(),
                "folder": str(folder),
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
                found.append(record.model_copy(update={"number": trial.number}))
        return tuple(found)


_SELF = {"forget": 0.0, "forget_quality": 1.0, "forget_quality_log10": 0.0}


def _absolute(benchmark: TofuBenchmark) -> TofuBenchmark:
    """Workers run elsewhere: a folder's name has to be whole."""
    folder = Path(benchmark.source).expanduser()
    return benchmark.model_copy(update={"source": str(folder.resolve())}) if folder.is_dir() else benchmark


def _scores(report: dict[str, Any]) -> ModelScores:
    return ModelScores(
        metrics=numbers({k: v for k, v in report.items() if k != "truth"}),
        samples=tuple(Sample.model_validate(s) for s in report.get("samples", ())),
    )
