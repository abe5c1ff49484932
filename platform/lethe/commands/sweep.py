"""`sweep STUDY`: search unlearning hyperparameters, track, register and report."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lethe.config.study import Study, load_study
from lethe.errors import BadInput, guard
from lethe.storage import home


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweep", description="Search unlearning hyperparameters for a study and report the Pareto front."
    )
    parser.add_argument("study", help="a name in search_spaces/, or a YAML file")
    parser.add_argument("--trials", type=int, metavar="N", help="how many trials (search.trials)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the search (search.seed)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value, e.g. run.schedule.epochs=3")
    parser.add_argument("--resume", action="store_true", help="go on with the latest study of this configuration")
    parser.add_argument("--dry-run", action="store_true", help="show the resolved study and its first configurations")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="where the report goes")
    return parser


@guard
def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad input, 130 interrupted (finished trials are kept)."""
    args = _parser().parse_args(argv)
    overrides = list(args.set)
    for key, value in (("search.trials", args.trials), ("search.seed", args.seed)):
        if value is not None:
            overrides.append(f"{key}={value}")
    study = load_study(args.study, overrides)
    if args.dry_run:
        from lethe.sweep.preview import preview

        preview(study)
        return 0
    return _run(study, args.resume, args.reports)


def _run(study: Study, resume: bool, reports: Path) -> int:
    from lethe.sweep.cluster import check_address, connect, in_job, prepare_environment

    prepare_environment()
    address = check_address()
    report_root = None if in_job() else _writable(reports)
    _writable(home())
    from lethe.tracking.tracker import open_tracker

    tracker = open_tracker(study.tracking)
    from lethe.models.prepare import prepare
    from lethe.sweep.checks import check_devices, check_model
    from lethe.sweep.console import Console
    from lethe.sweep.identity import claim

    console = Console()
    prepared = prepare(study.benchmark, study.model)
    check_model(study, prepared)
    study_id, folder = claim(study, prepared.digests, resume)
    with console.status(f"{study_id}: starting Ray"):
        connect(address)
    check_devices(study)
    from lethe.sweep.driver import Sweep

    sweep = Sweep(study, study_id, prepared, tracker, console, folder, resume)
    try:
        record = sweep.run()
    finally:
        console.stop()
    from lethe.reporting.report import write_report
    from lethe.tracking.registry import model_name

    target = folder / "report" if report_root is None else report_root / study_id
    registered = bool(tracker.uri) and study.tracking.register_models
    report = write_report(record, target, store=tracker.uri, model=model_name(study.name) if registered else "")
    where = tracker.finish(record, target)
    console.finish(record, report, [f"models, runs {where}"] if where else [])
    return 130 if record.interrupted else 0


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise BadInput(f"cannot write to {folder}: no permission")
    return folder.resolve()
