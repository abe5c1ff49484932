"""`score MODEL...`: score finished models side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lethe.cli.app import command
from lethe.cli.completion import studies_to_run
from lethe.cli.options import Overrides
from lethe.errors import UserError, unknown_name

if TYPE_CHECKING:
    from lethe.config.benchmark import Role
    from lethe.config.run import Engine
    from lethe.config.study import Study
    from lethe.study.scored_models import ScoredModel
    from lethe.study.scoring import Begin, SideBySide
    from lethe.terminal import Terminal

NONE = "none"
EXAMPLES = """
lethe score models:/lethe-tofu/2 path/to/model owner/hub-model --json scores.json
lethe score path/to/adapter --base path/to/model --source path/to/TOFU --oracle path/to/retain-only-model
lethe score path/to/model --benchmark tdec --metrics forget,utility
"""


@dataclass(frozen=True)
class _Asked:
    """A request to score models: the ones that they are compared with, the rows of the table."""

    models: Sequence[str]
    oracle: str | None
    start: str | None
    base: str | None
    metrics: tuple[str, ...]
    json: Path | None


@command("score", EXAMPLES)
def main(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Folders (a run's or an adapter's, too), hub ids, .gguf files, package:NAME or models:/name@alias.",
        ),
    ] = None,
    benchmark: Annotated[
        str,
        typer.Option(
            metavar="STUDY",
            help="tofu, tdec, muse, own, wmdp, or a study whose data and evaluation count.",
            autocompletion=studies_to_run,
        ),
    ] = "tofu",
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="Its data: a folder or a hub id.  [default: as the study says]")
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=f"Never saw the forget set; {NONE}: do without.  [default: the study's]"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="For tdec: sets the thresholds.  [default: the study's start model]"),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What adapters belong on, where they do not say.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="The rows of the table.  [default: all]")] = None,
    max_rows: Annotated[int | None, typer.Option(metavar="N", help="Rows per split (run.evaluation.max_rows).")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every metric to FILE.")
    ] = None,
    overrides: Overrides = None,
) -> int:
    """Score models side by side: folders, hub ids, versions.

    What was scored before is read back. Exit codes: 0 done, 2 bad input, 130 interrupted (finished scores are kept).
    """
    if not models:
        raise UserError(
            "no MODEL given: name a folder, a hub id, a .gguf file, package:NAME or models:/name@alias, or several"
        )
    from lethe.evaluation.lm_eval_study import with_stored_tasks
    from lethe.ops.stored_studies import load_named_study
    from lethe.storage.paths import check_root

    given = {"benchmark.source": source, "run.evaluation.max_rows": max_rows}
    assignments = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    study = with_stored_tasks(load_named_study(benchmark, [*(overrides or ()), *assignments]))
    rows = tuple(name for name in (metrics or "").split(",") if name)
    _check(study, oracle, start, rows)
    check_root()
    return _run(study, _Asked(models, oracle, start, base, rows, json_file and _writable(json_file)))


def _writable(file: Path) -> Path:
    """Return where the scores are written; a link stays one. Raises UserError where no file can be written."""
    from lethe.storage.paths import ensure_writable

    ensure_writable(file.resolve().parent)
    if file.is_dir():
        raise UserError(f"--json {file}: is a folder: name the file to write")
    target = file.resolve()
    if target.exists() and not target.is_file():
        raise UserError(f"--json {target}: is no regular file: name another one")
    return target


def _check(study: Study, oracle: str | None, start: str | None, metrics: Sequence[str]) -> None:
    """Refuse options that contradict the benchmark; neither models nor data are read."""
    benchmark = study.benchmark
    options = {"oracle": oracle, "start": start}
    for option, value in options.items():
        if value and option not in benchmark.compared_with:
            needed = " or ".join(f"--{role}" for role in benchmark.compared_with if role in options)
            raise UserError(f"--{option}: {benchmark.name} compares with {benchmark.comparison}: give {needed}")
    known = {name: metric for name, metric in benchmark.known_metrics(study.tasks).items() if not metric.cost}
    for name in metrics:
        if name not in known:
            raise unknown_name("metric", name, known)
        if "oracle" in known[name].needs and not _has_oracle(study, oracle):
            raise UserError(f"{name} compares with an oracle: give --oracle, a model that never saw the forget set")
    if benchmark.needs_start and not start and not _is_own(study):
        raise UserError(f"{benchmark.name} needs the start model for its thresholds: give --start")


def _is_own(study: Study) -> bool:
    """Tell whether the study's own models belong to its data: where there are embedded data, an embedded model was
    trained on them."""
    from lethe.config.benchmark import EMBEDDED
    from lethe.config.model import EmbeddedModel

    source = study.benchmark.given_sources().get("source", EMBEDDED)
    return source == EMBEDDED or not isinstance(study.model, EmbeddedModel)


def _has_oracle(study: Study, oracle: str | None) -> bool:
    """Tell whether there is an oracle: the option's, where it is given, else the study's own."""
    from lethe.config.model import PretrainedModel

    if oracle:
        return oracle != NONE
    alone = isinstance(study.model, PretrainedModel) and study.model.oracle is None  # any other comes with an oracle
    return _is_own(study) and not alone


def _run(study: Study, asked: _Asked) -> int:
    from lethe.benchmarks.base import load_benchmark
    from lethe.storage.paths import atomic_write
    from lethe.study.scored_models import distinct, find
    from lethe.study.scoring import Scoring, provenance_warnings, score_all
    from lethe.terminal import Terminal

    models = distinct([find(name, base=asked.base, registry=study.tracking.uri) for name in asked.models])
    benchmark, recipe = load_benchmark(study.benchmark), study.first_recipe()
    benchmark.check_rows(recipe.evaluation)
    _prepare_torch(recipe.engine)
    references = _reference_models(study, asked)
    notes = Terminal(stderr=True, soft_wrap=True)
    for line in provenance_warnings(models, benchmark.digest, references.get("oracle")):
        notes.print(f"note: {line}")
    scoring = Scoring(benchmark, recipe.evaluation, recipe.engine, study.prompt, study.stored_text)
    for line in dict.fromkeys(line for model in models for line in scoring.notes(model)):
        notes.print(f"warning: {line}")
    with _progress(notes, len(models) + len(references)) as begin:
        scores = score_all(scoring, models, references, begin)
    for scored in scores.models:
        if scored.fault:
            notes.print(f"warning: {scored.model.name}: {scored.fault}: none of its values is marked as the best")
    if asked.json:
        roles, found = study.benchmark.compared_with, scores.references
        compared: dict[str, Any] = {role: found[role].as_json() if role in found else None for role in roles}
        content: dict[str, Any] = {
            "benchmark": study.benchmark.model_dump(mode="json"),
            "data": benchmark.digest,
            "evaluation": recipe.evaluation.model_dump(mode="json"),
            "prompt": study.prompt.model_dump(mode="json"),
            "models": [scored.as_json() for scored in scores.models],
            **compared,
        }
        atomic_write(asked.json, json.dumps(content, indent=1) + "\n")
    _print_table(study, scores, asked.metrics)
    return 0


def _reference_models(study: Study, asked: _Asked) -> dict[Role, ScoredModel]:
    """Return the models that the benchmark compares with, by role: as given, else the study's own, which are measured
    in the study's precision and quantisation as its runs were."""
    from lethe.study.finetuning import prepare_study
    from lethe.study.preparation import locate
    from lethe.study.scored_models import ScoredModel, find

    options: dict[Role, str | None] = {"start": asked.start, "oracle": asked.oracle if asked.oracle != NONE else None}
    given = {role: name for role, name in options.items() if name}
    found = {role: find(name, f"--{role}", asked.base, registry=study.tracking.uri) for role, name in given.items()}
    without = {"oracle"} - ({"oracle"} if _has_oracle(study, asked.oracle) else set())
    wanted = [role for role in study.benchmark.compared_with if role not in found and role not in without]
    if not wanted or not _is_own(study):
        return found
    locate(study.benchmark, study.model, study.prompt, registry=study.tracking.uri)
    prepared, engine = prepare_study(study), study.first_recipe().engine
    measured = partial(ScoredModel, as_precision=engine.precision, as_quantisation=engine.quantisation)
    names: dict[Role, str] = {"start": "start model", "oracle": "oracle", "base": "base"}
    own: dict[Role, Path | None] = {"start": prepared.start, "oracle": prepared.oracle, "base": prepared.base}
    return found | {role: measured(names[role], folder) for role in wanted if (folder := own[role])}


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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

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
    from lethe.terminal import Terminal

    known = study.benchmark.known_metrics(study.tasks)
    for name in metrics:
        if not any(name in scored.metrics for scored in scores.models):
            raise UserError(f"--metrics: {name} was not measured: the benchmark lacks what it needs")
    columns = [scored.column for scored in scores.models]
    title = f"{study.benchmark.name}, {study.benchmark.data_name}"
    references = [scored.column for scored in scores.references.values()]
    faulty = [scored.model.name for scored in scores.models if scored.fault]
    table = score_table(columns, references, known, title, metrics, faulty)
    Terminal.for_tables().print(table)
