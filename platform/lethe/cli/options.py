"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, such as run.schedule.epochs=3. Repeatable."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the latest study of this configuration.")]
Reports = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the report goes.  [default: reports; in a job: the storage]")
]
