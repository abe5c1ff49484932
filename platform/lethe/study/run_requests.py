"""From a study's inputs to its runs: what a trial, a confirmation or an audit asks a worker group for."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path

from lethe.config.audits import Audits
from lethe.config.base import flatten
from lethe.config.benchmarks import AnyBenchmark
from lethe.config.model import EmbeddedModel
from lethe.config.run import Recipe, UnlearnRun
from lethe.config.study import Study
from lethe.data.files import ENDINGS
from lethe.data.privacy import study_salt
from lethe.models.model_files import parameter_count
from lethe.pool.event_log import log_folder
from lethe.pool.messages import EntryPoint, Job
from lethe.pool.resources import Shape
from lethe.records import Metrics, ModelScores, Scalar, StudyRecord, TrialRecord
from lethe.reporting.console import Console
from lethe.search.objectives import ObjectiveSpace, objective_records
from lethe.search.verdict import start_note
from lethe.storage.paths import atomic_write, home
from lethe.storage.replica import share_with_nodes
from lethe.study.baselines import interim_file, reference_file
from lethe.study.lineage import answered
from lethe.study.preflight import warm_up_note
from lethe.study.preparation import Prepared, data_notes, row_counts, study_prompt, training_record
from lethe.study.recorder import TrialPlan, read_result
from lethe.tracking.base import Tracker
from lethe.unlearning.requests import Assets, AuditedTrialRequest, AuditRequest, TrialRequest

DATA = (*(f"**/*{ending}" for ending in ENDINGS), "**/*.txt")


@dataclass
class Planner:
    """The parts of one session of a study, and the plans of its runs.

    `folder` is the study's home: what lies there is continued. A comparison's members share the scores of start model
    and oracle, in its own folder, `baselines_folder`, and the `largest_rank` of all arms, and name themselves in the
    `labels` of their trials.
    """

    study: Study
    id: str
    prepared: Prepared
    tracker: Tracker
    console: Console
    folder: Path
    baselines_folder: Path | None = None
    largest_rank: int | None = None
    labels: dict[str, Scalar] = field(default_factory=dict)

    @property
    def scores_folder(self) -> Path:
        """The folder with the scores of start model and oracle."""
        return self.baselines_folder or self.folder

    def assets(self) -> Assets:
        """Return the inputs that all runs of the study read, as paths and digests."""
        private = self.study.stored_text != "keep"
        if private:
            study_salt(self.scores_folder)  # made here, once
        own = {
            "origin": self._origin(),
            "largest_rank": self.largest_rank or self.study.largest_rank(),
            "study": self.scores_folder if private else None,
        }
        return assets_of(self.study, self.prepared).model_copy(update=own)

    def _origin(self) -> EmbeddedModel | str | None:
        """Return what the start model was made from, None where that is unknown."""
        model, base = self.study.model, self.prepared.base
        if isinstance(model, EmbeddedModel):
            return model
        return None if base is None else str(base)

    def plan(self, number: int, recipe: Recipe) -> TrialPlan:
        """Return the plan of trial `number` with this recipe. Number and folder do not enter its run's digest."""
        run = UnlearnRun(recipe=recipe, digests=self.prepared.digests)
        folder = self.folder / "runs" / run.digest()
        request = TrialRequest(
            run=run,
            assets=self.assets(),
            reference=reference_file(self.scores_folder),
            interim=interim_file(self.scores_folder),
            folder=folder,
            checkpoint=self.study.resources.checkpoint,
        )
        entry, audits = EntryPoint.TRIAL, self.study.trial_audits()
        if audits:
            entry, request = EntryPoint.AUDITED_TRIAL, AuditedTrialRequest(**vars(request), audits=audits)
        shape, logs = Shape.of(recipe.engine, self.study.resources.gpus_per_worker), log_folder(self.scores_folder)
        job = Job.of(run.digest(), entry, request, shape, logs)
        return TrialPlan(number, {**self.labels, **flatten(recipe)}, folder, job)

    def audit_request(self, audits: Audits, recipe: Recipe, model: Path, metrics: Metrics) -> AuditRequest:
        """Return the request of one audit of the model in the folder `model`, which was trained with `recipe`."""
        return AuditRequest(
            audits=audits,
            assets=self.assets(),
            recipe=recipe,
            model=model,
            reference=reference_file(self.scores_folder),
            metrics=metrics,
        )

    def stored(self, plan: TrialPlan) -> TrialRecord | None:
        """Return the result of an equal run of this study, None if there is none."""
        return read_result(plan.folder)


def assets_of(study: Study, prepared: Prepared) -> Assets:
    """Return data and start model as paths and digests, without an origin."""
    engine = study.first_recipe().engine
    return Assets(
        benchmark=absolute(study.benchmark, prepared.digests.data),
        data_digest=prepared.digests.data,
        model_digest=prepared.digests.model,
        start=str(prepared.start),
        cache=str(home() / "cache"),
        prompt=study.prompt,
        device=engine.device,
        precision=engine.precision,
        quantisation=engine.quantisation,
        text=study.stored_text,
    )


def absolute(benchmark: AnyBenchmark, digest: str) -> AnyBenchmark:
    """Return `benchmark` with the absolute paths of sources that are files or folders, shared with the nodes where
    workers run.

    `digest`: of the data. A source that is neither file nor folder stays as it is.
    """
    paths = {field: Path(name).expanduser().resolve() for field, name in benchmark.given_sources().items()}
    several = len(paths) > 1
    shared = {
        field: str(_shared(path, f"{digest}-{field}" if several else digest))
        for field, path in paths.items()
        if path.exists()
    }
    return benchmark.model_copy(update=shared)


def _shared(path: Path, name: str) -> Path:
    """Return a path under which every node finds the file or folder `path`."""
    if path.is_dir():
        return share_with_nodes(path, "benchmarks", name, DATA)
    return share_with_nodes(path.parent, "benchmarks", name, (glob.escape(path.name),)) / path.name


def opening_record(
    study_id: str,
    study: Study,
    prepared: Prepared,
    objectives: ObjectiveSpace,
    start: ModelScores,
    oracle: ModelScores | None,
    began: float,
) -> StudyRecord:
    """Return the record of a study or a comparison that has no trials yet; `began` in seconds since the epoch."""
    models = {"start": prepared.start, "oracle": prepared.oracle}
    trainings = {name: training_record(folder) for name, folder in models.items() if folder}
    about_start = start_note(start, oracle, study.criteria())
    return StudyRecord(
        id=study_id,
        space=study.name,
        study=study.model_dump(mode="json"),
        objectives=objective_records(objectives),
        digests=prepared.digests.model_dump(),
        start=start,
        oracle=oracle,
        start_folder=str(prepared.start),
        prompt=study_prompt(study, prepared),
        notes=(*data_notes(study, prepared), *filter(None, (warm_up_note(study), about_start))),
        trainings={name: record for name, record in trainings.items() if record},
        parameters=parameter_count(prepared.start),
        rows=row_counts(prepared.benchmark),
        requests=answered(study_id, prepared.benchmark, prepared.start),
        began=began,
    )


def write_first(record: StudyRecord, folder: Path) -> None:
    """Write the record of a study that begins to `study.json` in its folder, so that its settings are known should its
    session be killed. The record of an earlier session stays."""
    if not (folder / "study.json").exists():
        opened = record.model_copy(update={"interrupted": True})
        atomic_write(folder / "study.json", opened.model_dump_json(indent=1))
