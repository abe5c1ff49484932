"""`record STUDY [TRIAL]`: the deletion record of a model; `record --verify FILE`: whether one still holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lethe.cli.app import command
from lethe.cli.completion import study_ids
from lethe.cli.options import ColumnNames, Reports, parse_columns
from lethe.errors import UserError

if TYPE_CHECKING:
    from lethe.config.columns import Columns
    from lethe.deletion_records import DeletionRecord, Seal

EXAMPLES = """
lethe record own                           # of the latest study's best model
lethe record own-1a2b3c4d 9 --by "A. Person, data protection" --key key.pem
lethe record --verify reports/own-1a2b3c4d/deletion-9.json --forget forget.csv --model models:/lethe-own/2
"""


@command("record", EXAMPLES)
def main(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            help="A study's id, the beginning of one, or a search space: then its latest study.",
            autocompletion=study_ids,
        ),
    ] = None,
    trial: Annotated[
        str | None,
        typer.Argument(metavar="[TRIAL]", help="A trial's number or alias.  [default: the one with the best verdict]"),
    ] = None,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who stands for the record.")] = "",
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Sign with this private key (Ed25519, PEM).")] = None,
    reports: Reports = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify this record instead of writing one.")
    ] = None,
    forget: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="With --verify: the rows that were to be forgotten.")
    ] = None,
    columns: ColumnNames = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="With --verify: the model that is said to have forgotten.")
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="With --model: what an adapter belongs on.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --verify: the signer's public key (PEM).")
    ] = None,
) -> int:
    """Write the deletion record of a model, or verify one.

    A record says which rows were to be forgotten (salted hashes, no text), which model answers the request, how it was
    made, which criteria hold and what nobody checked. Exit codes: 0 done, 1 the verification fails, 2 bad input.
    """
    if verify is None:
        given = {"--forget": forget, "--column": columns, "--model": model, "--base": base, "--public-key": public_key}
        _refuse(given, "belongs to --verify FILE")
        if study is None:
            raise UserError("no STUDY given: name the study of the model, or a record with --verify FILE")
        return _write(study, trial, by, key, reports)
    _refuse({"--column": columns if forget is None else None}, "names columns of --forget, which is not given")
    _refuse({"--base": base if model is None else None}, "belongs to --model, which is not given")
    _refuse({"STUDY": study, "--by": by, "--key": key, "--reports": reports}, "does not belong to --verify")
    return _verify(verify, forget, parse_columns(columns or ()), model, base, public_key)


def _refuse(given: Mapping[str, object], why: str) -> None:
    for option, value in given.items():
        if value:
            raise UserError(f"{option}: {why}")


def _write(study: str, trial: str | None, by: str, key: Path | None, reports: Path | None) -> int:
    import shlex

    from lethe.cli.options import report_root
    from lethe.config.study import parse_study
    from lethe.ops.stored_studies import find_member, read_search
    from lethe.storage.paths import home
    from lethe.study.deletion import deletion_record
    from lethe.study.deletion_files import seal_of
    from lethe.terminal import command_prefix

    usage, stored = read_search(study)
    if stored.members:
        raise UserError(f"{usage.name} is a comparison: a record is of a study that was made for one request")
    chosen = stored.winner if trial is None else find_member(stored, trial)
    if chosen is None:
        raise UserError(f"study {usage.name} has no front: no model of it has forgotten anything")
    target = (report_root(reports) or home() / "reports") / usage.name
    record = deletion_record(stored, chosen, by)
    files = _save(record, seal_of(record, key), target)
    print(f"trial {chosen.number} of {usage.name}: {_verdict(record)}")
    for file in files:
        print(file)
    rows = parse_study(dict(stored.study)).benchmark.given_sources().get("forget", "ROWS")
    words = ["record", "--verify", str(files[0]), "--forget", rows, "--model", chosen.version or chosen.folder]
    words += ["--public-key", "FILE"] if key else []
    print(f"verify it:\n    {command_prefix()}{shlex.join(words)}")
    return 0


def _verdict(record: DeletionRecord) -> str:
    return record.verdict.describe() if record.verdict else "no criterion about forgetting could be checked"


def _save(record: DeletionRecord, seal: Seal, folder: Path) -> tuple[Path, Path]:
    """Write both files of a record and return their paths; an earlier record of the trial stays."""
    from lethe.reporting.deletion_page import deletion_page
    from lethe.storage.paths import atomic_write, ensure_writable
    from lethe.study.deletion_files import file_content

    ensure_writable(folder)
    names = (f"deletion-{record.trial}{suffix}" for suffix in chain([""], (f"-{n}" for n in count(2))))
    name = next(name for name in names if not (folder / f"{name}.json").exists())
    data, page = folder / f"{name}.json", folder / f"{name}.html"
    atomic_write(data, file_content(record, seal))
    atomic_write(page, deletion_page(record, seal, data.name))
    return data, page


def _verify(
    file: Path, forget: str | None, columns: Columns, model: str | None, base: str | None, public_key: Path | None
) -> int:
    from lethe.study.deletion import identity
    from lethe.study.deletion_files import verify
    from lethe.study.scored_models import find
    from lethe.terminal import Terminal

    found = identity(find(model, "--model", base), model) if model else None
    findings = list(verify(file, forget=forget, columns=columns, model=found, public_key=public_key))
    console = Terminal.for_tables()
    for finding in findings:
        console.print(f"{finding.what}: {finding.outcome}: {finding.words}", soft_wrap=True)
    failed = [finding.what for finding in findings if finding.outcome == "fails"]
    left = [finding.what for finding in findings if finding.outcome == "not checked"]
    if failed:
        console.print(f"the record does not hold: {', '.join(failed)}", soft_wrap=True)
        return 1
    console.print("the record holds" + (f"; not checked: {', '.join(left)}" if left else ""), soft_wrap=True)
    return 0
