"""`gc`: show the storage that studies hold, and free it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lethe.cli.app import command
from lethe.cli.completion import study_ids
from lethe.cli.options import Reports
from lethe.errors import UserError, unknown_name

if TYPE_CHECKING:
    from lethe.ops.disk_usage import Size, StudyUsage
    from lethe.ops.gc import Item
    from lethe.terminal import Terminal

EXAMPLES = """
lethe gc                                   # what each study holds, and what all share
lethe gc --study tofu-1a2b3c4d --yes
lethe gc --forget-text --study tofu-1a2b3c4d
lethe gc --older-than 30 --caches          # what would go; --yes frees it
"""


@dataclass(frozen=True)
class _Chosen:
    """A request to free studies by id, or caches, and of these only what did not change for so many days."""

    studies: tuple[str, ...]
    caches: bool
    older_than: float | None

    def __bool__(self) -> bool:
        return bool(self.studies or self.caches or self.older_than is not None)


@command("gc", EXAMPLES)
def main(
    study: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Free this study: runs, models, trials. Repeatable.", autocompletion=study_ids),
    ] = None,
    caches: Annotated[
        bool, typer.Option("--caches", help="Free what is made again when missed, prepared models too.")
    ] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS",
            help="Free studies that did not change for so long; with --study or --caches: only what of that is so old.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed, as without --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Free it.")] = False,
    forget_text: Annotated[
        bool,
        typer.Option(
            "--forget-text",
            help="Remove the text of rows from files, reports and MLflow, at once: of --study, else of every study.",
        ),
    ] = False,
    reports: Reports = None,
) -> int:
    """Show what studies hold on disk, and free it.

    Running studies, MLflow's files and what a remaining study needs are left alone; nothing is asked, and nothing
    removed without --yes. --forget-text leaves models, metrics and verdicts, and needs no --yes. Exit codes: 0 done, 2
    bad input.
    """
    from lethe.ops.disk_usage import storage_snapshot, study_usages
    from lethe.terminal import Terminal

    if older_than is not None and not older_than >= 0:
        raise UserError(f"--older-than {older_than:g}: must be a number of days, 0 or more")
    if dry_run and yes:
        raise UserError("--yes: frees, and --dry-run does not: take one of them")
    chosen = _Chosen(tuple(dict.fromkeys(study or ())), caches, older_than)
    if yes and not chosen and not forget_text:
        raise UserError("--yes: name what to free: --study ID, --older-than DAYS, --caches")
    console = Terminal.for_tables()
    with storage_snapshot() as root:
        studies = study_usages(root / "studies")
        if forget_text:
            if caches or older_than is not None:
                raise UserError(
                    "--forget-text: takes the text out of whole studies: leave --caches and --older-than out"
                )
            _forget_text(console, chosen.studies, studies, root, reports or Path("reports"), dry_run)
        elif chosen:
            _free(console, list(_items(chosen, studies, root)), yes)
        else:
            _print_usage(console, studies, root)
    return 0


def _items(chosen: _Chosen, studies: Sequence[StudyUsage], root: Path) -> Iterator[Item]:
    """Yield the items that are chosen. Raises UserError for an unknown or a running study."""
    from lethe.ops.disk_usage import shared_usages
    from lethe.ops.gc import shared_items, study_item

    def old_enough(size: Size) -> bool:
        return bool(chosen.older_than is None or size.days >= chosen.older_than)

    by_name = {study.name: study for study in studies}
    freed = []
    for name in chosen.studies:
        if name not in by_name:
            raise unknown_name("study", name, by_name)
        if by_name[name].state == "running":
            raise UserError(f"study {name} is running: stop it first")
        freed.append(by_name[name])
    if not chosen.studies and not chosen.caches:
        freed = [study for study in studies if study.state != "running"]
    freed = [study for study in freed if old_enough(study.total)]
    yield from (study_item(study, root) for study in freed)
    if chosen.caches:
        remaining = [study for study in studies if study not in freed]
        yield from shared_items(shared_usages(root, remaining), old_enough, root)


def _forget_text(
    console: Terminal, names: Sequence[str], studies: Sequence[StudyUsage], root: Path, reports: Path, dry: bool
) -> None:
    """Remove the text of rows that the named studies left, or all of them, and say how much it was."""
    from lethe.ops.forget_text import forget_text

    by_name = {study.name: study for study in studies}
    if unknown := [name for name in names if name not in by_name]:
        raise unknown_name("study", unknown[0], by_name)
    chosen = [by_name[name] for name in names] or list(studies)
    removed = forget_text(chosen, root, reports, every=not names, dry=dry)
    found = ", ".join(f"{what} {count}" for what, count in removed.items() if count)
    verb = "would remove" if dry else "removed"
    console.print(f"{verb} the text of rows: {found or 'there is none'}", soft_wrap=True)
    console.print(f"reports were looked for in {reports.resolve()}: --reports names another folder", soft_wrap=True)


def _print_usage(console: Terminal, studies: list[StudyUsage], root: Path) -> None:
    from lethe.ops.disk_usage import shared_usages
    from lethe.ops.gc import shared_table, study_table
    from lethe.storage.paths import root as storage_root

    console.print(study_table(studies, storage_root()))
    console.print(shared_table(shared_usages(root, studies)))


def _free(console: Terminal, items: list[Item], yes: bool) -> None:
    from lethe.ops.disk_usage import format_size

    for item in items:
        if yes:
            item.free()
        verb = "removed" if yes else "would remove"
        console.print(f"{verb} {item.name}  {format_size(item.size.bytes)}  {item.note}", soft_wrap=True)
    total = format_size(sum(item.size.bytes for item in items))
    console.print(f"{total} freed" if yes else f"{total} in all; nothing was removed: --yes does it")
