"""`score MODEL...`: what finished models still know, side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.config.benchmark import EMBEDDED, TdecBenchmark
from lethe.config.metrics import known_metrics
from lethe.config.model import EmbeddedModel
from lethe.config.study import Study, load_study
from lethe.errors import UserError, exit_codes, unknown_name
from lethe.evaluation.lm_eval_tasks import with_stored_tasks
from lethe.storage.paths import atomic_write, check_root, ensure_writable
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from lethe.config.run import Engine
    from lethe.study.model_lookup import ScoredModel
    from lethe.study.scoring import Begin, SideBySide

NONE = "none"
PIPED_WIDTH = 200  # columns; a terminal has its own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score",
        description="Score models side by side. What was scored before is read back.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a folder (a run's or an adapter's, too), a hub id, or models:/name@alias",
    )
    parser.add_argument(
        "--benchmark", default="tofu", metavar="STUDY", help="tofu, tdec, or a study whose data and evaluation count"
    )
    parser.add_argument("--source", metavar="PATH", help="its data: a folder or a hub id (default: as the study says)")
    parser.add_argument(
        "--oracle", metavar="MODEL", help=f"never saw the forget set (default: the study's; {NONE}: do without)"
    )
    parser.add_argument("--start", metavar="MODEL", help="tdec: sets the thresholds (default: the study's start model)")
    parser.add_argument("--base", metavar="MODEL", help="what adapters belong on, where they do not say")
    parser.add_argument("--metrics", metavar="A,B", help="the rows of the table (default: all)")
    parser.add_argument("--max-rows", type=int, metavar="N", help="rows per split (run.evaluation.max_rows)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every metric to FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the study, as in sweep")
    return parser


@exit_codes
def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad input, 130 interrupted (finished scores are kept)."""
    args = _parser().parse_args(argv)
    if not args.models:
        raise UserError("no MODEL given: name a folder, a hub id or models:/name@alias, or several of them")
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
    return _run(study, args, metrics)


def _check(study: Study, args: argparse.Namespace, metrics: Sequence[str]) -> None:
    """What needs neither models nor data to be refused."""
    tdec = isinstance(study.benchmark, TdecBenchmark)
    if tdec and args.oracle:
        raise UserError("--oracle: tdec compares with the start model on unseen text: give --start")
    if not tdec and args.start:
        raise UserError("--start: tofu compares with an oracle: give --oracle")
    known = {
        name: metric for name, metric in known_metrics(study.benchmark.name, study.tasks).items() if not metric.cost
    }
    for name in metrics:
        if name not in known:
            raise unknown_name("metric", name, known)
        if "oracle" in known[name].needs and not _has_oracle(study, args.oracle):
            raise UserError(f"{name} compares with an oracle: give --oracle, a model that never saw the forget set")
    if tdec and not args.start and not _is_own(study):
        raise UserError("tdec needs the start model for its thresholds: give --start")


def _is_own(study: Study) -> bool:
    """Whether the study's own models belong to its data: embedded ones would have to be trained on other data."""
    return study.benchmark.source == EMBEDDED or not isinstance(study.model, EmbeddedModel)


def _has_oracle(study: Study, given: str | None) -> bool:
    if given:
        return given != NONE
    embedded = isinstance(study.model, EmbeddedModel)
    return _is_own(study) and (embedded or study.model.oracle is not None)


def _run(study: Study, args: argparse.Namespace, metrics: Sequence[str]) -> int:
    from lethe.benchmarks.tofu.loading import load_benchmark
    from lethe.study.model_lookup import find
    from lethe.study.scoring import Scoring, provenance_warnings, score_all

    models = [find(name, base=args.base) for name in args.models]
    rows, recipe = load_benchmark(study.benchmark), study.first_recipe()
    yardstick = _yardstick(study, args)
    _prepare_torch(recipe.engine)
    told = RichConsole(stderr=True, highlight=False, soft_wrap=True)
    for line in provenance_warnings(models, rows.digest, yardstick):
        told.print(f"note: {line}", markup=False)
    scoring = Scoring(rows, study.benchmark, recipe.evaluation, recipe.engine)
    with _progress(told, len(models) + (yardstick is not None)) as begin:
        found = score_all(scoring, models, yardstick, begin)
    if args.json:
        whole = {
            "benchmark": study.benchmark.model_dump(mode="json"),
            "data": rows.digest,
            "evaluation": recipe.evaluation.model_dump(mode="json"),
            "models": [scored.as_json() for scored in found.models],
            "start" if scoring.needs_start else "oracle": found.yardstick and found.yardstick.as_json(),
        }
        atomic_write(args.json, json.dumps(whole, indent=1) + "\n")
    _show(study, found, metrics)
    return 0


def _yardstick(study: Study, args: argparse.Namespace) -> ScoredModel | None:
    """The oracle, or for TDEC the start model: as given, else the study's own."""
    from lethe.study.model_lookup import ScoredModel, find
    from lethe.study.preparation import prepare

    if args.start or args.oracle not in (None, NONE):
        return find(args.start or args.oracle, "--start" if args.start else "--oracle", args.base)
    tdec = isinstance(study.benchmark, TdecBenchmark)
    if not tdec and not _has_oracle(study, args.oracle):
        return None
    prepared = prepare(study.benchmark, study.model)
    folder = prepared.start if tdec else prepared.oracle
    return folder and ScoredModel("start model" if tdec else "oracle", folder)


def _prepare_torch(engine: Engine) -> None:
    import torch

    if engine.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.engine.device is cuda, and this machine has no GPU that torch can use: choose cpu")
    torch.set_num_threads(engine.threads)


@contextmanager
def _progress(console: RichConsole, models: int) -> Iterator[Begin]:
    """A bar on a terminal, a line per model elsewhere."""
    if not console.is_terminal:
        yield lambda name: console.print(f"scoring {name}", markup=False)
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


def _show(study: Study, found: SideBySide, metrics: Sequence[str]) -> None:
    from lethe.reporting.score_table import score_table

    known = known_metrics(study.benchmark.name, study.tasks)
    for name in metrics:
        if not any(name in scored.metrics for scored in found.models):
            raise UserError(f"--metrics: {name} was not measured: the benchmark lacks what it needs")
    columns = [scored.column for scored in found.models]
    title = f"{study.benchmark.name}, {study.benchmark.source}"
    table = score_table(columns, found.yardstick and found.yardstick.column, known, title, metrics)
    console = RichConsole(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
