"""What lies where, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lethe.holdings.shared import Shared
from lethe.holdings.size import Size, shown
from lethe.holdings.studies import Holding

COLOURS = {"running": "green", "finished": "", "can be resumed": "yellow", "not begun": "dim"}


def study_table(studies: Iterable[Holding], root: str) -> Table:
    """A row per study, the newest first, and one for all together."""
    studies = list(studies)
    table = Table(title=escape(f"studies in {root}"), title_justify="left")
    table.add_column("study", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("start model", no_wrap=True)
    for name in ("changed", "runs", "models", "weights", "checkpoints", "results", "together"):
        table.add_column(name, justify="right", no_wrap=True)
    for study in studies:
        style = COLOURS[study.state]
        sizes = (study.weights, study.checkpoints, study.rest, study.total)
        start = Path(study.record.start_folder).name if study.record else ""
        table.add_row(
            escape(study.name), f"[{style}]{study.state}[/]" if style else study.state, escape(start), _age(study.total),
            str(study.runs), str(study.models), *(shown(size.bytes) for size in sizes),
        )  # fmt: skip
    table.add_section()
    table.add_row("all", *[""] * 8, shown(sum(study.total.bytes for study in studies)))
    return table


def shared_table(kinds: Iterable[Shared]) -> Table:
    """A row per kind of what studies share, and whether `--caches` frees it."""
    table = Table(title="shared", title_justify="left")
    for name in ("in", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("changed", "together", "--caches frees"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in kinds:
        free = sum(kind.entries.values(), Size())
        last = shown(free.bytes) if kind.entries else f"[dim]{escape(kind.why) or 'nothing'}[/]"
        table.add_row(kind.name, escape(kind.about), _age(kind.size), shown(kind.size.bytes), last)
    return table


def _age(size: Size) -> str:
    if not size.changed:
        return ""
    days = size.days
    return f"{days:.0f} d ago" if days >= 1 else f"{days * 24:.0f} h ago"
