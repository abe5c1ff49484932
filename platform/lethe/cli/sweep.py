"""`sweep STUDY`: search unlearning hyperparameters, track, register and report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lethe.cli.app import command
from lethe.cli.completion import studies_to_run
from lethe.cli.options import Overrides, Reports, Resume, report_root
from lethe.errors import EXIT_INTERRUPTED, EXIT_NO_RESULT, StudyBrokenError, UserError

if TYPE_CHECKING:
    from lethe.config.study import Study
    from lethe.storage.publish import Publisher
    from lethe.study.finetuning import Training
    from lethe.tracking.base import Tracker

EXAMPLES = """
lethe sweep tofu --trials 24
lethe sweep tofu --set run.objective.name=ihl --dry-run
lethe sweep path/to/study.yaml --seed 1 --reports path/to/reports
lethe sweep tofu --resume                  # after Ctrl-C or a crash: what is finished is kept
lethe sweep tofu-1a2b3c4d --resume --trials 48
"""


@command("sweep", EXAMPLES)
def main(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A name in search_spaces/, a YAML file, or a stored study's id.",
            autocompletion=studies_to_run,
        ),
    ],
    trials: Annotated[int | None, typer.Option(metavar="N", help="How many trials (search.trials).")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the search (search.seed).")] = None,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved study, its first configurations and what it needs.")
    ] = False,
    reports: Reports = None,
    publish: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Copy report, study.json and the front's models to s3://, gs:// or file:// in the end.",
        ),
    ] = None,
) -> int:
    """Search hyperparameters for a study and report the Pareto front.

    Finished trials are kept in every case. Exit codes: 0 done, 1 no trial has a result, 2 bad input, 75 a machine, disk
    or cluster failed, 130 interrupted.
    """
    from lethe.evaluation.lm_eval_study import with_stored_tasks
    from lethe.ops.stored_studies import load_named_study
    from lethe.study.file_objectives import with_stored_objectives

    given = {"search.trials": trials, "search.seed": seed}
    assignments = [*(overrides or ()), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    loaded = with_stored_objectives(with_stored_tasks(load_named_study(study, assignments)))
    return _dry_run(loaded) if dry_run else _run(loaded, study, resume, reports, publish)


def _dry_run(study: Study) -> int:
    """Print what the study is, reads and needs. Raises UserError for what a run would refuse."""
    from lethe.config.model import FinetunedModel
    from lethe.models.packages import missing_packages
    from lethe.ops.stored_studies import measured_trial
    from lethe.scaling.estimate import describe_after_search, describe_needs, describe_study_time
    from lethe.study.finetuning import describe_training
    from lethe.study.inputs import find_inputs
    from lethe.study.preflight import check_adapters, check_data, check_shapes, corners, warm_up_note, without_gpu
    from lethe.study.preview import describe_trial_audits, preview

    inputs = find_inputs(study)
    if inputs.benchmark is not None:
        check_data(study, inputs.benchmark)
    check_adapters(study)
    check_shapes(study, inputs.start)
    preview(study, inputs)
    trainings = _trainings(study)
    missing = [training for training in trainings or () if not training.is_there]
    print(describe_needs(study, corners(study), inputs, missing))
    measured = measured_trial(study)
    print(describe_study_time(study, corners(study), inputs, measured))
    if after := describe_after_search(study, corners(study), measured):
        print(after)
    if audited := describe_trial_audits(study):
        print(audited)
    if isinstance(study.model, FinetunedModel):
        for training in trainings or ():
            print(describe_training(training, study.model.base))
        if trainings is None:
            names = "oracle" if study.model.path else "start model and oracle"
            print(f"{names}: trained from {study.model.base} before the trials, unless trained before")
    for problem in filter(None, (warm_up_note(study), without_gpu(study), *missing_packages(corners(study)))):
        print(f"note    {problem}")
    return 0


def _trainings(study: Study) -> Sequence[Training] | None:
    """Return the models that the study trains on its worker groups, None where their base or data are not on this
    machine. Raises UserError where these cannot be had."""
    from lethe.config.model import FinetunedModel

    if not isinstance(study.model, FinetunedModel):
        return ()
    from lethe.study.finetuning import trainings_of
    from lethe.study.inputs import is_hub_id
    from lethe.study.preparation import locate, named_models

    names = (*named_models(study.model).values(), *study.benchmark.given_sources().values())
    if any(is_hub_id(name) and not Path(name).expanduser().exists() for name in names):
        return None
    locate(study.benchmark, study.model, study.prompt, registry=study.tracking.uri)
    return trainings_of(study)


def _check_resumable(study: Study, given: str) -> None:
    """Raise UserError unless there is a study to resume, or a training of its models, before Ray starts. `given`: what
    the command line calls it."""
    from lethe.study.finetuning import prepare_study, trainings_of
    from lethe.study.resume import check_resumable

    missing = [training for training in trainings_of(study) if not training.is_there]
    if not missing:
        check_resumable(study, prepare_study(study).digests, given)
    elif not any(training.has_begun for training in missing):
        raise UserError(f"nothing to resume: the models of {study.name} are not trained yet: leave --resume out")


def _check(
    study: Study, given: str, resume: bool, reports: Path | None, publish: str | None
) -> tuple[str | None, Path | None, Publisher | None, Tracker]:
    """Return the cluster's address, the folder for reports, where the study is published, and its tracker. Raises
    UserError for everything that can be known to be wrong before Ray starts."""
    from lethe.pool.cluster import check_address, prepare_environment
    from lethe.storage.paths import check_root
    from lethe.study.preflight import check_place

    prepare_environment()
    address = check_address()
    root = report_root(reports)
    check_root()
    check_place(study.search)
    from lethe.storage.publish import open_publisher

    shelf = open_publisher(publish) if publish else None
    from lethe.tracking.base import open_tracker

    tracker = open_tracker(study.tracking)
    if study.search.storage or study.search.warm_start:
        from lethe.search.warm_start import check_storage

        check_storage(study)
    from lethe.models.packages import check_packages
    from lethe.study.preflight import check_adapters, check_cores, check_files, check_gpu, corners
    from lethe.study.preparation import locate
    from lethe.study.saved_adapters import check_cut

    check_adapters(study)
    check_cut(study.tracking)
    if address is None:
        check_gpu(study)
        check_cores(study)
    check_packages(corners(study))
    locate(study.benchmark, study.model, study.prompt, registry=study.tracking.uri)
    check_files(study)
    if resume:
        _check_resumable(study, given)
    return address, root, shelf, tracker


def _run(study: Study, given: str, resume: bool, reports: Path | None, publish: str | None) -> int:
    from lethe.config.model import EmbeddedModel
    from lethe.records import why_without_result
    from lethe.reporting.console import Console
    from lethe.storage.paths import atomic_write

    console = Console()
    with console.status("checking the study, this machine and its services"):
        address, root, shelf, tracker = _check(study, given, resume, reports, publish)
    from lethe.study.finetuning import prepare_study
    from lethe.study.resume import claim, is_known
    from lethe.study.session import Session

    console.say("preparing data and models")
    with Session(study, address) as session:
        prepared = prepare_study(study, session, console)
        # A session that ended while it trained the models has left no study yet.
        resume = resume and is_known(study, prepared.digests)
        from lethe.study.comparison import Comparison
        from lethe.study.preflight import check_model
        from lethe.study.runner import Sweep

        if isinstance(study.model, EmbeddedModel):  # its tokenizer is made with it
            check_model(study, prepared)
        with claim(study, prepared.digests, resume) as (study_id, folder):
            kind = Comparison if study.compare else Sweep
            try:
                record = kind(study, study_id, prepared, tracker, console, folder).run(session)
            finally:
                console.stop()
            from lethe.reporting.report import write_report
            from lethe.study.saved_adapters import describe_adapters, with_saved_adapters
            from lethe.tracking.model_card import write_model_cards
            from lethe.tracking.model_registry import model_name

            record = with_saved_adapters(record, study.tracking.max_lora_rank)
            write_model_cards(record)
            with console.status("registering the front's models in MLflow") if record.front else nullcontext():
                names = tracker.register(record)
            record = names.add_to(record)
            atomic_write(folder / "study.json", record.model_dump_json(indent=1))
            target = root / study_id if root else folder / "report"
            registered = bool(tracker.uri) and study.tracking.register_models
            report = write_report(record, target, store=tracker.uri, model=model_name(study.name) if registered else "")
            address_of_runs = tracker.finish(record, target)
            runs = [f"models, runs {address_of_runs}"] if address_of_runs else []
            console.finish(record, report, [*describe_adapters(record), *names.notes, *runs])
            if shelf and not record.interrupted:
                console.say(f"published    {shelf.put(record, target)}")
            console.next_step(record)
            if record.interrupted and session.broken:
                raise StudyBrokenError(session.broken)
    if record.interrupted:
        return EXIT_INTERRUPTED
    if problem := why_without_result(record.trials):
        print(f"lethe: {problem}", file=sys.stderr)
        return EXIT_NO_RESULT
    return 0
