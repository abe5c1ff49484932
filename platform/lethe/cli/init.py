"""`init`: a first study file for one's own rows and model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lethe.cli.app import command
from lethe.cli.options import ColumnNames, parse_columns
from lethe.errors import UserError

if TYPE_CHECKING:
    from lethe.study.own_study import Given, OwnStudy

EXAMPLES = """
lethe init --forget forget.csv --retain retain.csv --model path/to/model
lethe init --forget forget.csv --retain retain.csv --model path/to/model --base path/to/base --oracle train
lethe init --forget letters/ --retain kept/ --holdout unseen/ --model owner/hub-model --out letters.yaml
lethe init --forget f.csv --retain r.csv --column question=Frage --column answer=Antwort --model path/to/model
"""


@command("init", EXAMPLES)
def main(
    forget: Annotated[str, typer.Option(metavar="SOURCE", help="Rows to forget: a file, a folder of texts, a hub id.")],
    retain: Annotated[str, typer.Option(metavar="SOURCE", help="Rows to keep, likewise.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model that knows them: a folder, a hub id, models:/name@alias; or embedded, to try it.",
        ),
    ],
    holdout: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Rows like those to forget that the model was never trained on."),
    ] = None,
    earlier: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Rows of the requests that MODEL answers already.")
    ] = None,
    general: Annotated[str | None, typer.Option(metavar="SOURCE", help="Other text, for the perplexity.")] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A model like it that never saw the rows to forget; train: made from --base first."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="The checkpoint that MODEL was made from.")] = None,
    columns: ColumnNames = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The study file to write.")] = Path("my-study.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write FILE even if it exists.")] = False,
) -> int:
    """Write a study for your own rows and model.

    Says what can be measured with what you have, and what each further file would add. Nothing is trained. Exit codes:
    0 done, 2 bad input.
    """
    from lethe.config.study import load_study
    from lethe.storage.paths import atomic_write, ensure_writable
    from lethe.study.own_study import Given, own_study
    from lethe.study.preflight import check_data
    from lethe.study.preparation import locate

    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {out}: a study file ends in .yaml")
    if out.exists() and not force:
        raise UserError(f"--out {out}: is there already: give another name, or --force to write over it")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", out.stem):
        raise UserError(f"--out {out}: names the study, too: letters, digits, _, . and - only, the first no sign")
    ensure_writable(out.resolve().parent)
    given = Given(forget, retain, model, holdout, earlier, general, oracle, base, parse_columns(columns or ()))
    made = own_study(given if out.resolve().parent == Path.cwd() else _absolute(given))
    before = out.read_bytes() if out.exists() else None
    atomic_write(out, made.text)
    try:
        from lethe.benchmarks.base import load_benchmark

        study = load_study(str(out))
        check_data(study, load_benchmark(study.benchmark))
        locate(study.benchmark, study.model, study.prompt, registry=study.tracking.uri)
    except UserError:
        if before is None:
            out.unlink()
        else:
            atomic_write(out, before)
        raise
    _print(made, out)
    return 0


def _absolute(given: Given) -> Given:
    """Return `given` with whole paths of files and folders: the study is somewhere else, and may be run from there."""
    names = {name: value for name, value in vars(given).items() if isinstance(value, str)}
    paths = {name: Path(value).expanduser() for name, value in names.items()}
    whole: dict[str, Any] = {name: str(path.resolve()) for name, path in paths.items() if path.exists()}
    return replace(given, **whole)


def _print(made: OwnStudy, out: Path) -> None:
    import shlex

    from rich.table import Table

    from lethe.reporting.scales import format_magnitude
    from lethe.terminal import Terminal, command_prefix

    console = Terminal.for_tables()
    table = Table(title="What can be measured", title_justify="left")
    for column in ("what", "with what you gave", "it would take"):
        table.add_column(column)
    for ability in made.abilities:
        table.add_row(ability.what, "yes" if ability.given else "no", "" if ability.given else ability.remedy)
    for name, source in made.sources.items():
        console.print(f"{name}: {len(source.rows)} {source.kind} of {source.name}", soft_wrap=True)
        for note in source.notes:
            console.print(f"note: {note}", soft_wrap=True)
    if made.parameters:
        context = f", {made.context} tokens of context" if made.context else ""
        console.print(f"model: {format_magnitude(made.parameters)} parameters{context}", soft_wrap=True)
    console.print(table)
    if not any(ability.given for ability in made.abilities if ability.compares):
        console.print(
            "Without --holdout or --oracle nobody can say whether the model still shows that it once saw the rows.",
            soft_wrap=True,
        )
    file, call = shlex.quote(str(out)), command_prefix()
    console.print(f"wrote {out}: what it needs, and the study itself:", soft_wrap=True)
    for words in (f"{file} --dry-run", file):
        console.print(f"    {call}sweep {words}", soft_wrap=True)
