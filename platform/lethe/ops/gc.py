"""What would be freed, with what is lost by it; and freeing it.

What lies where, as tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.errors import UserError
from lethe.ops.disk_usage import LEFT, SharedUsage, Size, StudyUsage, format_size, remove
from lethe.search.storages import open_storage
from lethe.storage.paths import home, store
from lethe.study.resume import LEASE, hold
from lethe.tracking.registered_models import registered_runs
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Item:
    """Something to free. `free` does it; what keeps it from that is a BadInput."""

    name: str
    size: Size
    note: str
    free: Callable[[], None]


def study_item(study: StudyUsage, root: Path) -> Item:
    """A whole study, its trials in Optuna's storage included: a new one of the same name would go on with them."""
    return Item(f"study {study.name}", study.total, "; ".join(_lost(study)), lambda: _free_study(study, root))


def shared_items(kinds: Iterable[SharedUsage], old_enough: Callable[[Size], bool], root: Path) -> Iterator[Item]:
    """What can be made again, by kind."""
    for kind in kinds:
        paths = [path for path, each in kind.entries.items() if old_enough(each)]
        if paths:
            whole = sum((kind.entries[path] for path in paths), Size())
            yield Item(
                kind.name, whole, f"{len(paths)} entries: {kind.about}", lambda paths=paths: _remove(paths, root)
            )


def _lost(study: StudyUsage) -> Iterator[str]:
    """What is gone for good."""
    yield f"{study.runs} runs"
    if study.state == "can be resumed":
        yield "it cannot be resumed then"
    front = study.front
    if front:
        try:
            safe = len(registered_runs(study.setting("tracking", "uri")) & front.keys())
            kept = f"{safe} of them registered, which keep MLflow's own files" if safe else "none of them registered"
        except UserError as error:
            kept = f"whether they are registered is not known ({error})"
        yield f"front models: {len(front)}, {kept}"


def _free_study(study: StudyUsage, root: Path) -> None:
    with hold(study.folder) as ours:
        if not ours:
            raise UserError(f"study {study.name} is running")
        # Optuna first: a study without its trials there finds its results in its folder, not the other way round.
        _forget_trials(study)
        if store():
            for part in study.folder.iterdir():
                if part.name != LEASE:  # ours, until the end of the block
                    remove(part, root)
            return
        gone = study.folder.with_name(f"{LEFT}{study.name}")
        study.folder.rename(gone)
    remove(gone, root)


def _forget_trials(study: StudyUsage) -> None:
    """In Optuna's storage, those of a comparison's members, too."""
    url, file = study.setting("search", "storage"), home() / "optuna.db"
    if url is None and not file.exists():
        return
    storage = open_storage(url or f"sqlite:///{file}")
    for known in storage.get_all_studies():
        if known.study_name == study.name or known.study_name.startswith(f"{study.name}."):
            storage.delete_study(known._study_id)


def _remove(paths: Iterable[Path], root: Path) -> None:
    for path in paths:
        remove(path, root)


COLOURS = {"running": "green", "finished": "", "can be resumed": "yellow", "not begun": "dim"}


def study_table(studies: Iterable[StudyUsage], root: str) -> Table:
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
            str(study.runs), str(study.models), *(format_size(size.bytes) for size in sizes),
        )  # fmt: skip
    table.add_section()
    table.add_row("all", *[""] * 8, format_size(sum(study.total.bytes for study in studies)))
    return table


def shared_table(kinds: Iterable[SharedUsage]) -> Table:
    """A row per kind of what studies share, and whether `--caches` frees it."""
    table = Table(title="shared", title_justify="left")
    for name in ("in", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("changed", "together", "--caches frees"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in kinds:
        free = sum(kind.entries.values(), Size())
        last = format_size(free.bytes) if kind.entries else f"[dim]{escape(kind.why) or 'nothing'}[/]"
        table.add_row(kind.name, escape(kind.about), _age(kind.size), format_size(kind.size.bytes), last)
    return table


def _age(size: Size) -> str:
    if not size.changed:
        return ""
    days = size.days
    return f"{days:.0f} d ago" if days >= 1 else f"{days * 24:.0f} h ago"
