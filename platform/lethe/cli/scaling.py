"""`scaling STUDY`: how cost and quality grow with the model; `scaling plan`: what to run at a size not tried."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lethe.cli import scaling_plan  # noqa: F401  # adds `scaling plan`
from lethe.cli.app import command
from lethe.cli.completion import scaling_names
from lethe.cli.options import Overrides, Reports, Resume, report_root
from lethe.errors import EXIT_INTERRUPTED, EXIT_NO_RESULT

if TYPE_CHECKING:
    from lethe.config.run import Digests
    from lethe.config.scaling import ScalingStudy
    from lethe.tracking.base import Tracker

EXAMPLES = """
lethe scaling tofu --dry-run
lethe scaling tofu
lethe scaling plan --model-params 7e9 --gpu-memory 80e9      # see lethe scaling plan --help
"""


@command("scaling", EXAMPLES)
def main(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A name in search_spaces/ (tofu is scaling-tofu), or a YAML file; plan makes a plan on paper.",
            autocompletion=scaling_names,
        ),
    ],
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the points and what they are predicted to need.")
    ] = False,
    reports: Reports = None,
) -> int:
    """Measure how cost and quality grow with the model, and predict.

    Finished points are kept in every case. Exit codes: 0 done, 1 nothing was measured, 2 bad input, 130 interrupted.
    """
    from lethe.config.scaling import load_scaling
    from lethe.scaling.design import available_memory, check_memory, check_points
    from lethe.study.file_objectives import with_stored_objectives

    loaded = with_stored_objectives(load_scaling(study, overrides or ()))
    check_points(loaded)
    if dry_run:
        from lethe.scaling.design import preview
        from lethe.study.preflight import without_gpu

        preview(loaded)
        if problem := without_gpu(loaded):
            print(f"note    {problem}")
        return 0
    check_memory(loaded, available_memory(loaded))
    return _run(loaded, resume, reports, [study, *(part for given in overrides or () for part in ("--set", given))])


def _check(study: ScalingStudy, resume: bool, reports: Path | None) -> tuple[str | None, Path | None, Digests, Tracker]:
    """Return the cluster's address, the folder for reports, the study's digests and its tracker. Raises UserError for
    everything that can be known to be wrong before Ray starts."""
    from lethe.pool.cluster import check_address, prepare_environment
    from lethe.storage.paths import check_root
    from lethe.study.preflight import check_adapters, check_cores, check_files, check_gpu, check_place, corners

    prepare_environment()
    address = check_address()
    root = report_root(reports)
    check_root()
    check_place(study.search)
    from lethe.tracking.base import open_tracker

    # Models of several sizes have no common front: nothing of it is registered.
    tracker = open_tracker(study.tracking.model_copy(update={"register_models": False}))
    from lethe.benchmarks.base import load_benchmark
    from lethe.config.run import Digests
    from lethe.models.packages import check_packages
    from lethe.study.preparation import locate
    from lethe.study.resume import check_resumable

    check_packages(corners(study))
    of_sizes = [study.model_copy(update={"model": model}) for model in study.models().values()]
    for of_size in of_sizes:
        check_adapters(of_size)
    if address is None:
        check_gpu(study)
        check_cores(study)
    for of_size in of_sizes:
        locate(study.benchmark, of_size.model, study.prompt, registry=study.tracking.uri)
        check_files(of_size)
    digests = Digests(data=load_benchmark(study.benchmark).digest, model=study.identity())
    if resume:
        check_resumable(study, digests)
    return address, root, digests, tracker


def _run(study: ScalingStudy, resume: bool, reports: Path | None, given: Sequence[str]) -> int:
    """Run the study that the arguments `given` name, and report."""
    from lethe.records import why_without_result
    from lethe.reporting.console import Console

    console = Console()
    with console.status("checking the study, this machine and its services"):
        address, root, digests, tracker = _check(study, resume, reports)
    from lethe.reporting.next_steps import NextStep
    from lethe.reporting.scaling import describe_scaling, scaling_steps, write_scaling_report
    from lethe.scaling.study import ScalingRunner, prepare_models
    from lethe.study.resume import claim
    from lethe.study.session import Session
    from lethe.terminal import command_prefix

    console.say("preparing data and models")
    with Session(study, address) as session:
        prepared = prepare_models(study, session)
        with claim(study, digests, resume) as (study_id, folder):
            try:
                record, log = ScalingRunner(study, study_id, tracker, console, folder, prepared).run(session)
            finally:
                console.stop()
            target = root / study_id if root else folder / "report"
            report = write_scaling_report(record, target)
            address_of_runs = tracker.finish(log, target)
            for sentence in describe_scaling(record):
                console.say(f"- {sentence}")
            console.say(f"report       {report}")
            if address_of_runs:
                console.say(f"models, runs {address_of_runs}")
            call = command_prefix()
            again = NextStep("go on where it stopped", f"{call}scaling {shlex.join([*given, '--resume'])}")
            console.command(*(again if record.interrupted else scaling_steps(record, call)[0]))
    if record.interrupted:
        return EXIT_INTERRUPTED
    if problem := why_without_result((*record.points, *record.trials)):
        print(f"lethe: {problem}", file=sys.stderr)
        return EXIT_NO_RESULT
    return 0
