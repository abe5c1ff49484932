"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lethe.cli.completion import study_ids
from lethe.errors import UserError

if TYPE_CHECKING:
    from lethe.config.columns import Columns

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, such as run.schedule.epochs=3. Repeatable."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the latest study of this configuration.")]
Reports = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the report goes.  [default: reports; in a job: the storage]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StoredStudy = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study's id, the beginning of one, or a search space: then its latest study.",
        autocompletion=study_ids,
    ),
]
ColumnNames = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="KEY=NAME", help="A column of SOURCE, such as question=Frage. Repeatable."),
]


def parse_columns(assignments: Sequence[str]) -> Columns:
    """Return the columns of `question=Frage` and others. Raises UserError for an assignment that is none."""
    from pydantic import ValidationError

    from lethe.config.columns import Columns
    from lethe.config.error_messages import to_user_error

    named = {}
    for assignment in assignments:
        name, equals, column = assignment.partition("=")
        if not (equals and name and column):
            raise UserError(f"--column {assignment}: give it as question=NAME, a key and the name of a column")
        named[name] = column
    try:
        return Columns(**named)
    except ValidationError as error:
        raise UserError(f"--column: {to_user_error(error, Columns)}") from None


def report_root(reports: Path | None) -> Path | None:
    """Return the folder that `--reports` names, made writable, by default `reports` here; None where reports go to the
    storage: in a job, unless `reports` is absolute. Raises UserError where it cannot be written."""
    from lethe.pool.cluster import in_job
    from lethe.storage.paths import ensure_writable

    # A job's working directory may be a copy that is thrown away: only a whole path is meant to last.
    if in_job() and not (reports and reports.is_absolute()):
        return None
    return ensure_writable(reports or Path("reports"))
