"""`gc`: show the storage that studies hold, and free it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.cli.arguments import parse_arguments
from lethe.errors import UserError, exit_codes, unknown_name
from lethe.storage.paths import root as storage_root
from lethe.terminal import Terminal

if TYPE_CHECKING:
    from lethe.ops.disk_usage import Size, StudyUsage
    from lethe.ops.gc import Item


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gc",
        description="Show what studies hold in the storage root, and free it. Running studies, MLflow's files and what"
        " a remaining study needs are left alone; nothing is asked, and nothing removed without --yes.",
    )
    parser.add_argument(
        "--study", action="append", default=[], metavar="ID", help="free this study: runs, models, trials"
    )
    parser.add_argument(
        "--caches", action="store_true", help="free what is made again when missed, prepared models too"
    )
    parser.add_argument(
        "--older-than", type=float, metavar="DAYS",
        help="free studies that did not change for so long; with --study or --caches: only what of that is so old",
    )  # fmt: skip
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="only say what would be freed (the default)")
    mode.add_argument("--yes", action="store_true", help="free it")
    return parser


@exit_codes
def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad input."""
    args = parse_arguments(_parser(), argv)
    from lethe.ops.disk_usage import storage_snapshot, study_usages

    if args.older_than is not None and not args.older_than >= 0:
        raise UserError(f"--older-than {args.older_than:g}: must be a number of days, 0 or more")
    if args.yes and not (args.study or args.caches or args.older_than is not None):
        raise UserError("--yes: name what to free: --study ID, --older-than DAYS, --caches")
    console = Terminal.for_tables()
    with storage_snapshot() as root:
        studies = study_usages(root / "studies")
        if args.study or args.caches or args.older_than is not None:
            _free(console, list(_items(args, studies, root)), args.yes)
        else:
            _print_usage(console, studies, root)
    return 0


def _items(args: argparse.Namespace, studies: list[StudyUsage], root: Path) -> Iterator[Item]:
    """Yield the items that the arguments name. Raises UserError for an unknown or a running study."""
    from lethe.ops.disk_usage import shared_usages
    from lethe.ops.gc import shared_items, study_item

    def old_enough(size: Size) -> bool:
        return bool(args.older_than is None or size.days >= args.older_than)

    by_name = {study.name: study for study in studies}
    chosen = []
    for name in dict.fromkeys(args.study):
        if name not in by_name:
            raise unknown_name("study", name, by_name)
        if by_name[name].state == "running":
            raise UserError(f"study {name} is running: stop it first")
        chosen.append(by_name[name])
    if not args.study and not args.caches and args.older_than is not None:
        chosen = [study for study in studies if study.state != "running"]
    chosen = [study for study in chosen if old_enough(study.total)]
    yield from (study_item(study, root) for study in chosen)
    if args.caches:
        yield from shared_items(
            shared_usages(root, [study for study in studies if study not in chosen]), old_enough, root
        )


def _print_usage(console: Terminal, studies: list[StudyUsage], root: Path) -> None:
    from lethe.ops.disk_usage import shared_usages
    from lethe.ops.gc import shared_table, study_table

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
