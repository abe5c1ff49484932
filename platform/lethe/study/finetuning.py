"""Start models and oracles that a study trains from a base checkpoint, on its worker groups, before it begins.

Each is cached by everything that decides it: the base's content, the rows as token ids, the recipe. Where the start
model is there already, the oracle alone is trained, on rows as the start model's tokenizer reads them. Once they are
there the study goes on as with a `PretrainedModel`.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.config.base import canonical_json, short_digest
from lethe.config.model import FinetunedModel, PretrainedModel
from lethe.config.run import FOLDER as CHECKPOINT
from lethe.config.run import Engine, Recipe
from lethe.config.study import Study
from lethe.errors import StudyBrokenError, UserError
from lethe.records import EpochReport, FinalReport
from lethe.reporting.console import Console
from lethe.storage.paths import home, object_of
from lethe.storage.replica import ensure_local
from lethe.study.preflight import check_data, check_model, task_of_start
from lethe.study.preparation import Prepared, prepare, training_record
from lethe.study.resume import hold

if TYPE_CHECKING:
    from lethe.pool.messages import Job
    from lethe.study.session import Session

RECIPE = 1  # raise it when a change of the training code changes its results: old models are then left alone
START, ORACLE = "start model", "oracle"


@dataclass(frozen=True)
class Training:
    """One model that a study needs. `key` names its content."""

    name: str
    rows: int
    steps: int
    key: str

    @property
    def folder(self) -> Path:
        """The trained model's folder."""
        return home() / "models" / self.key

    @property
    def work(self) -> Path:
        """The folder of its checkpoints while it is trained."""
        return home() / "training" / self.key

    @property
    def is_there(self) -> bool:
        """True if the model has been trained."""
        return ensure_local(self.folder)

    @property
    def has_begun(self) -> bool:
        """True if an interrupted training can be resumed."""
        if at := object_of(self.work / CHECKPOINT):
            objects, name = at
            return bool(objects.list_names(name))
        return any((self.work / CHECKPOINT).glob("*"))


def prepare_study(study: Study, session: Session | None = None, console: Console | None = None) -> Prepared:
    """Return the inputs of a study's runs. Models that are to be fine-tuned and are not there yet are trained on the
    session's groups; without a session a UserError says that they are missing.

    Ctrl-C and a kill leave checkpoints, from which the next call goes on.
    """
    model = study.model
    if not isinstance(model, FinetunedModel):
        return prepare(study.benchmark, model, study.prompt, registry=study.tracking.uri)
    base = _base(study, model)
    trainings = _trainings(study, model, base)
    missing = [training for training in trainings if not training.is_there]
    if missing and session is None:
        names = " and ".join(training.name for training in missing)
        are = "are" if len(missing) > 1 else "is"
        raise UserError(f"model.name: {names} of {study.name} {are} not trained yet: run its sweep first")
    if missing and session:
        check_data(study, base.benchmark)
        check_model(study, base)
        _train(study, model, base, missing, session, console or Console())
    folders = {training.name: str(training.folder) for training in trainings}
    start = model.path or folders[START]
    trained = PretrainedModel(path=start, oracle=folders.get(ORACLE), base=model.base)
    return prepare(study.benchmark, trained, study.prompt, registry=study.tracking.uri)


def trainings_of(study: Study) -> tuple[Training, ...]:
    """Return the models that a study trains on its worker groups; none unless its model is a `FinetunedModel`."""
    model = study.model
    return _trainings(study, model, _base(study, model)) if isinstance(model, FinetunedModel) else ()


def describe_training(training: Training, base: str) -> str:
    """Return in one line what a model is trained on, or where it is."""
    if training.is_there:
        return f"{training.name}: trained before from {base}, in {training.folder}"
    begun = "half trained" if training.has_begun else "to be trained"
    return f"{training.name}: {begun}, from {base} on {training.rows} rows in {training.steps} steps, before the trials"


def _base(study: Study, model: FinetunedModel) -> Prepared:
    """Return the study's inputs before the oracle is there, with the base checkpoint in the place of a start model that
    is to be trained."""
    known = PretrainedModel(path=model.path or model.base, base=model.base if model.path else None)
    return prepare(study.benchmark, known, study.prompt, registry=study.tracking.uri)


def _trainings(study: Study, model: FinetunedModel, base: Prepared) -> tuple[Training, ...]:
    from lethe.data.batches import total_steps

    engine = _engine(study)
    task, schedule = task_of_start(base, study.prompt), recipe_of(study, model).schedule
    settings = model.model_dump(mode="json", exclude={"path", "base"})

    def training(name: str, include_forget: bool) -> Training:
        rows = task.training_rows(include_forget)
        ids = short_digest(json.dumps([[row.ids, row.prompt_length] for row in rows]))
        given = engine.model_dump(mode="json", exclude={"quantisation"})
        content = [RECIPE, base.digests.base or base.digests.model, base.digests.prompt, ids, settings, given]
        return Training(name, len(rows), total_steps(len(rows), schedule), short_digest(canonical_json(content)))

    oracle = [training(ORACLE, include_forget=False)] if base.benchmark.has_oracle else []
    return (*([] if model.path else [training(START, include_forget=True)]), *oracle)


def recipe_of(study: Study, model: FinetunedModel) -> Recipe:
    """Return the recipe that start model and oracle are trained by."""
    return model.recipe(_engine(study))


def _engine(study: Study) -> Engine:
    """Return the engine that start model and oracle are trained on: the study's, but the base is never quantised; the
    study rounds what it loads."""
    return study.first_recipe().engine.model_copy(update={"quantisation": None})


def _train(
    study: Study, model: FinetunedModel, base: Prepared, missing: Sequence[Training], session: Session, console: Console
) -> None:
    """Train the missing models side by side, as far as there are groups. Raises UserError for one that fails."""
    from lethe.models.subprocess_training import console_report
    from lethe.pool.jobs import interruptible, run_jobs

    engine = _engine(study)
    # A training that was stopped is another job when it is tried again, and what it has is in its checkpoints.
    by_job = {f"training:{training.key}:{secrets.token_hex(4)}": training for training in missing}
    for training in missing:
        console.say(describe_training(training, model.base))
    with nullcontext() if session.ready else console.status("starting worker groups"):
        pool = session.pool()
    with ExitStack() as stack:
        for training in missing:
            stack.enter_context(_held(training))
        progress = stack.enter_context(console_report([training.name for training in missing]))
        stack.enter_context(interruptible())

        def reported(job: Job, report: EpochReport) -> None:
            progressed(job, report.values["optimizer_step"] / by_job[job.run].steps)

        def progressed(job: Job, share: float) -> None:
            progress(by_job[job.run].name, share)

        def ended(job: Job, _: list[EpochReport], report: FinalReport) -> None:
            training = by_job[job.run]
            _check(training, model, report)
            progress(training.name, 1.0)

        jobs = [_job(run, training, study, model, base, engine) for run, training in by_job.items()]
        try:
            run_jobs(pool, jobs, ended, reported, progressed)
        except KeyboardInterrupt:
            console.say("interrupted while models were trained: the same command goes on from their last checkpoints")
            raise
    for training in missing:
        if record := training_record(training.folder):
            console.say(f"{training.name:<12} trained {record.describe()}")


def _job(run: str, training: Training, study: Study, model: FinetunedModel, base: Prepared, engine: Engine) -> Job:
    from lethe.pool.messages import EntryPoint, Job
    from lethe.pool.resources import Shape
    from lethe.study.run_requests import assets_of
    from lethe.unlearning.requests import FinetuneRequest

    request = FinetuneRequest(
        model=model,
        engine=engine,
        base=base.base or base.start,
        base_digest=base.digests.base or base.digests.model,
        assets=assets_of(study, base).model_copy(update={"quantisation": None}),
        include_forget=training.name == START,
        folder=training.folder,
        work=training.work,
        checkpoint=study.resources.checkpoint,
    )
    return Job.of(run, EntryPoint.FINETUNE, request, Shape.of(engine))


@contextmanager
def _held(training: Training) -> Iterator[None]:
    """Keep other sessions from training the same model meanwhile. Raises UserError where one does."""
    with hold(training.work) as ours:
        if not ours:
            raise UserError(f"the {training.name} of this study is being trained by another process: wait for it")
        yield
    if training.is_there:
        shutil.rmtree(training.work, ignore_errors=True)


REMEDIES = {
    "diverged": "lower model.learning_rate",
    "out_of_memory": "lower model.batch_size, set model.micro_tokens, or train an adapter: model.adapter.name=lora",
}


def _check(training: Training, model: FinetunedModel, report: FinalReport) -> None:
    """Raise UserError, or StudyBrokenError where workers died, unless the training is complete."""
    if report.verdict == "complete":
        return
    reason = (report.reason.strip().splitlines() or [report.verdict])[-1]
    what = f"training the {training.name} from {model.base}"
    if report.verdict in ("lost", "interrupted", "stopped"):
        raise StudyBrokenError(f"{what} ended: {reason}")
    remedy = f": {REMEDIES[report.verdict]}" if report.verdict in REMEDIES else ""
    raise UserError(f"{what} ended, {report.verdict.replace('_', ' ')}: {reason}{remedy}")
