"""`score MODEL...`: score finished models side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lethe.cli.arguments import parse_arguments
from lethe.config.benchmark import BENCHMARKS, EMBEDDED
from lethe.config.model import EmbeddedModel, PretrainedModel
from lethe.config.study import Study, load_study
from lethe.errors import UserError, exit_codes, unknown_name
from lethe.evaluation.lm_eval_study import with_stored_tasks
from lethe.storage.paths import atomic_write, check_root, ensure_writable
from lethe.terminal import Terminal

if TYPE_CHECKING:
    from lethe.config.run import Engine
    from lethe.study.scored_models import ScoredModel
    from lethe.study.scoring import Begin, SideBySide

NONE = "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score",
        description="Score models side by side. What was scored before is read back.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a folder (a run's or an adapter's, too), a hub id, a .gguf file, package:NAME or models:/name@alias",
    )
    parser.add_argument(
        "--benchmark",
        default="tofu",
        metavar="STUDY",
        help=f"{', '.join(BENCHMARKS)}, or a study whose data and evaluation count",
    )
    parser.add_argument("--source", metavar="PATH", help="its data: a folder or a hub id (default: as the study says)")
    parser.add_argument(
        "--oracle", metavar="MODEL", help=f"never saw the forget set (default: the study's; {NONE}: do without)"
    )
    with_start = ", ".join(name for name, kind in BENCHMARKS.items() if kind.compared_with == "start")
    parser.add_argument(
        "--start", metavar="MODEL", help=f"{with_start}: sets the thresholds (default: the study's start model)"
    )
    parser.add_argument("--base", metavar="MODEL", help="what adapters belong on, where they do not say")
    parser.add_argument("--metrics", metavar="A,B", help="the rows of the table (default: all)")
    parser.add_argument("--max-rows", type=int, metavar="N", help="rows per split (run.evaluation.max_rows)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every metric to FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the study, as in sweep")
    return parser


@exit_codes
def main(argv: list[str] | None = None) -> int:
    """Score models and print their table; return 0 done, 2 bad input, 130 interrupted (finished scores are kept)."""
    args = parse_arguments(_parser(), argv)
    if not args.models:
        raise UserError(
            "no MODEL given: name a folder, a hub id, a .gguf file, package:NAME or models:/name@alias, or several"
        )
    overrides = list(args.set)
    for key, value in (("benchmark.source", args.source), ("run.evaluation.max_rows", args.max_rows)):
        if value is not None:
            overrides.append(f"{key}={json.dumps(value)}")
    study = with_stored_tasks(load_study(args.benchmark, overrides))
    metrics = tuple(name for name in (args.metrics or "").split(",") if name)
    _check(study, args, metrics)
    check_root()
    if args.json:
        ensure_writable(args.json.resolve().parent)
        if args.json.is_dir():
            raise UserError(f"--json {args.json}: is a folder: name the file to write")
        args.json = args.json.resolve()  # a link stays one
        if args.json.exists() and not args.json.is_file():
            raise UserError(f"--json {args.json}: is no regular file: name another one")
    return _run(study, args, metrics)


def _check(study: Study, args: argparse.Namespace, metrics: Sequence[str]) -> None:
    """Refuse options that contradict the benchmark; neither models nor data are read."""
    benchmark = study.benchmark
    options = {"oracle": args.oracle, "start": args.start}
    for option, value in options.items():
        if value and option != benchmark.compared_with:
            needed = f"--{benchmark.compared_with}"
            raise UserError(f"--{option}: {benchmark.name} compares with {benchmark.comparison}: give {needed}")
    known = {name: metric for name, metric in benchmark.known_metrics(study.tasks).items() if not metric.cost}
    for name in metrics:
        if name not in known:
            raise unknown_name("metric", name, known)
        if "oracle" in known[name].needs and not _has_oracle(study, args.oracle):
            raise UserError(f"{name} compares with an oracle: give --oracle, a model that never saw the forget set")
    if benchmark.compared_with == "start" and not args.start and not _is_own(study):
        raise UserError(f"{benchmark.name} needs the start model for its thresholds: give --start")


def _is_own(study: Study) -> bool:
    """Tell whether the study's own models belong to its data: an embedded model was trained on embedded data."""
    return study.benchmark.source == EMBEDDED or not isinstance(study.model, EmbeddedModel)


def _has_oracle(study: Study, oracle: str | None) -> bool:
    """Tell whether there is an oracle: the option's, where it is given, else the study's own."""
    if oracle:
        return oracle != NONE
    alone = isinstance(study.model, PretrainedModel) and study.model.oracle is None  # any other comes with an oracle
    return _is_own(study) and not alone


def _run(study: Study, args: argparse.Namespace, metrics: Sequence[str]) -> int:
    from lethe.benchmarks.base import load_benchmark
    from lethe.study.scored_models import distinct, find
    from lethe.study.scoring import Scoring, provenance_warnings, score_all

    models = distinct([find(name, base=args.base, registry=study.tracking.uri) for name in args.models])
    benchmark, recipe = load_benchmark(study.benchmark), study.first_recipe()
    benchmark.check_rows(recipe.evaluation)
    _prepare_torch(recipe.engine)
    reference = _reference_model(study, args)
    notes = Terminal(stderr=True, soft_wrap=True)
    for line in provenance_warnings(models, benchmark.digest, reference):
        notes.print(f"note: {line}")
    scoring = Scoring(benchmark, recipe.evaluation, recipe.engine, study.prompt)
    for line in dict.fromkeys(line for model in models for line in scoring.notes(model)):
        notes.print(f"warning: {line}")
    with _progress(notes, len(models) + (reference is not None)) as begin:
        scores = score_all(scoring, models, reference, begin)
    for scored in scores.models:
        if scored.fault:
            notes.print(f"warning: {scored.model.name}: {scored.fault}: none of its values is marked as the best")
    if args.json:
        content = {
            "benchmark": study.benchmark.model_dump(mode="json"),
            "data": benchmark.digest,
            "evaluation": recipe.evaluation.model_dump(mode="json"),
            "prompt": study.prompt.model_dump(mode="json"),
            "models": [scored.as_json() for scored in scores.models],
            study.benchmark.compared_with: scores.reference and scores.reference.as_json(),
        }
        atomic_write(args.json, json.dumps(content, indent=1) + "\n")
    _print_table(study, scores, metrics)
    return 0


def _reference_model(study: Study, args: argparse.Namespace) -> ScoredModel | None:
    """Return the model that the benchmark compares with, oracle or start model: as given, else the study's own, which
    is measured in the study's precision and quantisation as its runs were."""
    from lethe.study.finetuning import prepare_study
    from lethe.study.preparation import locate
    from lethe.study.scored_models import ScoredModel, find

    if args.start or args.oracle not in (None, NONE):
        option = "--start" if args.start else "--oracle"
        return find(args.start or args.oracle, option, args.base, registry=study.tracking.uri)
    with_oracle = study.benchmark.compared_with == "oracle"
    if with_oracle and not _has_oracle(study, args.oracle):
        return None
    locate(study.benchmark, study.model, study.prompt, registry=study.tracking.uri)
    prepared, engine = prepare_study(study), study.first_recipe().engine
    measured = partial(ScoredModel, as_precision=engine.precision, as_quantisation=engine.quantisation)
    if with_oracle:
        return None if prepared.oracle is None else measured("oracle", prepared.oracle)
    return measured("start model", prepared.start)


def _prepare_torch(engine: Engine) -> None:
    import torch

    if engine.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.engine.device is cuda, and this machine has no GPU that torch can use: choose cpu")
    torch.set_num_threads(engine.threads)


@contextmanager
def _progress(console: Terminal, models: int) -> Iterator[Begin]:
    """Provide a function to call with the name of each model that begins: a bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield lambda name: console.print(f"scoring {name}")
        return
    columns = (
        SpinnerColumn(),
        TextColumn("scoring {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=models, completed=-1)
        yield lambda name: bar.update(task, description=name, advance=1)


def _print_table(study: Study, scores: SideBySide, metrics: Sequence[str]) -> None:
    from lethe.reporting.score_table import score_table

    known = study.benchmark.known_metrics(study.tasks)
    for name in metrics:
        if not any(name in scored.metrics for scored in scores.models):
            raise UserError(f"--metrics: {name} was not measured: the benchmark lacks what it needs")
    columns = [scored.column for scored in scores.models]
    title = f"{study.benchmark.name}, {study.benchmark.source}"
    reference = None if scores.reference is None else scores.reference.column
    faulty = [scored.model.name for scored in scores.models if scored.fault]
    table = score_table(columns, reference, known, title, metrics, faulty)
    Terminal.for_tables().print(table)
