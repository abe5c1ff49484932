"""`scaling STUDY`: how cost and quality grow with the model; `scaling plan`: what to run at a size not tried."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

from lethe.cli.arguments import parse_arguments
from lethe.config.run import OFFLOAD_STAGES, Quantisation
from lethe.config.scaling import ScalingStudy, load_scaling
from lethe.errors import EXIT_INTERRUPTED, EXIT_NO_RESULT, UserError, exit_codes
from lethe.records import why_without_result
from lethe.storage.paths import check_root, ensure_writable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scaling",
        description="Measure how cost and quality grow with the model, fit laws, predict."
        " `scaling plan --help`: plans.",
    )
    parser.add_argument("study", help="a name in search_spaces/ (tofu is scaling-tofu), or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one value")
    parser.add_argument("--resume", action="store_true", help="go on with the latest study of this configuration")
    parser.add_argument("--dry-run", action="store_true", help="show the points and what they are predicted to need")
    parser.add_argument(
        "--reports", type=Path, metavar="DIR", help="where the report goes (reports/; in a job: the storage)"
    )
    return parser


@exit_codes
def main(argv: list[str] | None = None) -> int:
    """Run a scaling study, or print a plan; return the exit code. Finished points are kept in every case.

    0: done, 1: nothing was measured, 2: bad input, 130: interrupted.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["plan"]:
        return _plan(arguments[1:])
    args = parse_arguments(_parser(), arguments)
    study = load_scaling(args.study, args.set)
    from lethe.scaling.design import available_memory, check_memory, check_points

    check_points(study)
    if args.dry_run:
        from lethe.scaling.design import preview
        from lethe.study.preflight import without_gpu

        preview(study)
        if problem := without_gpu(study):
            print(f"note    {problem}")
        return 0
    check_memory(study, available_memory(study))
    return _run(study, args.resume, args.reports)


def _run(study: ScalingStudy, resume: bool, reports: Path | None) -> int:
    from lethe.pool.cluster import check_address, in_job, prepare_environment
    from lethe.study.preflight import check_cores, check_files, check_gpu, check_place, check_widths

    prepare_environment()
    address = check_address()
    # A job's working directory may be a copy that is thrown away: only a whole path is meant to last.
    reports = None if in_job() and not (reports and reports.is_absolute()) else reports or Path("reports")
    root = reports and ensure_writable(reports)
    check_root()
    check_place(study.search)
    from lethe.tracking.base import open_tracker

    # Models of several sizes have no common front: nothing of it is registered.
    tracker = open_tracker(study.tracking.model_copy(update={"register_models": False}))
    from lethe.benchmarks.base import load_benchmark
    from lethe.config.run import Digests
    from lethe.models.packages import check_quantised
    from lethe.reporting.console import Console
    from lethe.reporting.scaling import describe_scaling, write_scaling_report
    from lethe.scaling.study import ScalingRunner, prepare_models
    from lethe.study.preparation import locate
    from lethe.study.resume import check_resumable, claim
    from lethe.study.session import Session

    check_quantised(study.first_recipe().engine.quantisation)
    of_sizes = [study.model_copy(update={"model": model}) for model in study.models().values()]
    for of_size in of_sizes:
        check_widths(of_size)
    if address is None:
        check_gpu(study)
        check_cores(study)
    for of_size in of_sizes:
        locate(study.benchmark, of_size.model, study.prompt, registry=study.tracking.uri)
        check_files(of_size)
    digests = Digests(data=load_benchmark(study.benchmark).digest, model=study.identity())
    if resume:
        check_resumable(study, digests)
    console = Console()
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
    if record.interrupted:
        return EXIT_INTERRUPTED
    if problem := why_without_result((*record.points, *record.trials)):
        print(f"lethe: {problem}", file=sys.stderr)
        return EXIT_NO_RESULT
    return 0


def _plan(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scaling plan", description="Stage, workers, batch, memory and hours, on paper."
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument(
        "--model-params", type=float, metavar="N", help="parameters, e.g. 7e9: a Llama of about this size"
    )
    size.add_argument("--model", type=Path, metavar="DIR", help="a folder with a config.json")
    parser.add_argument("--gpu-memory", type=float, required=True, metavar="BYTES", help="of one device, e.g. 80e9")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument(
        "--lora-rank", type=int, metavar="R", help="LoRA on all linear layers; default: train every weight"
    )
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="compute activations again in the backward pass"
    )
    parser.add_argument(
        "--offload", choices=tuple(OFFLOAD_STAGES), default="none", help="what lies in the CPU's memory (none)"
    )
    parser.add_argument(
        "--quantisation", choices=get_args(Quantisation), help="a frozen base of 4 bits a weight; with --lora-rank"
    )
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="forget rows in a step, over all workers (32)"
    )
    parser.add_argument("--length", type=int, default=256, metavar="N", help="tokens of a row (256)")
    parser.add_argument("--answer", type=int, default=128, metavar="N", help="of these in the answer (128)")
    parser.add_argument(
        "--forget-rows", type=int, default=400, metavar="N", help="rows to forget (400, TOFU's forget10)"
    )
    parser.add_argument("--epochs", type=int, default=5, metavar="N")
    parser.add_argument("--vocabulary", type=int, default=32_000, metavar="N", help="with --model-params (32000)")
    parser.add_argument("--rate", type=float, metavar="FLOPS", help="FLOP/s of one device (312e12, an A100's in bf16)")
    args = parse_arguments(parser, argv)
    _check_most(args)
    for name, value in vars(args).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be above 0")
    from lethe.scaling.plan import RATE, Question, answer
    from lethe.scaling.transformer import Transformer

    if args.model:
        shape = Transformer.of_config(_read_config(args.model))
    else:
        shape = Transformer.of_size(args.model_params, args.vocabulary)
        if not args.model_params / 2 <= shape.parameters <= args.model_params * 2:
            nearest = f"the nearest Llama of {args.vocabulary} tokens has {shape.parameters:.3g} parameters"
            raise UserError(f"--model-params {args.model_params:g}: {nearest}")
    narrowest = min(min(pair) for pair in shape.linears())
    if args.lora_rank and args.lora_rank > narrowest:
        raise UserError(f"--lora-rank {args.lora_rank}: the narrowest layer of this model has {narrowest} columns")
    question = Question(
        shape=shape,
        memory=args.gpu_memory,
        precision=args.precision,
        rank=args.lora_rank,
        rows=args.batch,
        length=args.length,
        answer=args.answer,
        steps=args.epochs * -(-args.forget_rows // args.batch),
        rate=args.rate or RATE,
        checkpointing=args.gradient_checkpointing,
        offload=args.offload,
        quantisation=args.quantisation,
    )
    print(answer(question))
    return 0


MOST = {int: 10**9, float: 1e18}


def _check_most(args: argparse.Namespace) -> None:
    """Raise UserError for numbers that no plan can mean: infinite, not a number, or beyond `MOST`."""
    for name, value in vars(args).items():
        if type(value) in MOST and not value <= MOST[type(value)]:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be at most {MOST[type(value)]:g}")


def _read_config(folder: Path) -> dict[str, Any]:
    """Return a model folder's config.json. Raises UserError where it cannot be read."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config
    except (OSError, ValueError) as error:
        raise UserError(f"--model {folder}: no config.json that can be read ({type(error).__name__})") from None
