"""Freeing storage: items with a note on the loss, and tables of the usage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from lethe.errors import UserError
from lethe.ops.disk_usage import REMOVED_PREFIX, SharedUsage, Size, StudyUsage, format_size, remove
from lethe.search.storages import open_storage
from lethe.storage.paths import home, store
from lethe.study.resume import LEASE, hold
from lethe.tracking.model_addresses import registered_runs


@dataclass(frozen=True)
class Item:
    """Something to free; `note` says what is lost. `free` frees it and raises UserError where it cannot."""

    name: str
    size: Size
    note: str
    free: Callable[[], None]


def study_item(study: StudyUsage, root: Path) -> Item:
    """Return the item of a whole study, its trials in Optuna's storage included."""
    return Item(f"study {study.name}", study.total, "; ".join(_losses(study)), partial(_free_study, study, root))


def shared_items(usages: Iterable[SharedUsage], old_enough: Callable[[Size], bool], root: Path) -> Iterator[Item]:
    """Yield an item for each shared entry of the storage root with the removable parts that are old enough."""
    for usage in usages:
        paths = [path for path, size in usage.removable.items() if old_enough(size)]
        if paths:
            total = sum((usage.removable[path] for path in paths), Size())
            note = f"{len(paths)} entries: {usage.description}"
            yield Item(usage.name, total, note, partial(_remove_all, paths, root))


def _losses(study: StudyUsage) -> Iterator[str]:
    """Yield what is gone for good with the study."""
    yield f"{study.runs} runs"
    if study.state == "can be resumed":
        yield "it cannot be resumed then"
    front = study.front
    if front:
        try:
            safe = len(registered_runs(study.setting("tracking", "uri")) & front.keys())
            registered = f"{safe} of them registered, which keep MLflow's own files"
            kept = registered if safe else "none of them registered"
        except UserError as error:
            kept = f"whether they are registered is not known ({error})"
        yield f"front models: {len(front)}, {kept}"


def _free_study(study: StudyUsage, root: Path) -> None:
    with hold(study.folder) as is_ours:
        if not is_ours:
            raise UserError(f"study {study.name} is running")
        # Optuna first: a new study of this name would go on with the trials there, whereas a study that has its folder
        # and no trials finds its results in the folder.
        _delete_optuna_trials(study)
        if store():
            for part in study.folder.iterdir():
                if part.name != LEASE:  # held until the end of the block
                    remove(part, root)
            return
        renamed = study.folder.with_name(f"{REMOVED_PREFIX}{study.name}")
        study.folder.rename(renamed)
    remove(renamed, root)


def _delete_optuna_trials(study: StudyUsage) -> None:
    """Delete the study from Optuna's storage, with those of a comparison's members."""
    url, file = study.setting("search", "storage"), home() / "optuna.db"
    if url is None and not file.exists():
        return
    storage = open_storage(url or f"sqlite:///{file}")
    for stored in storage.get_all_studies():
        if stored.study_name == study.name or stored.study_name.startswith(f"{study.name}."):
            storage.delete_study(stored._study_id)


def _remove_all(paths: Iterable[Path], root: Path) -> None:
    for path in paths:
        remove(path, root)


STATE_STYLES = {"running": "green", "finished": "", "can be resumed": "yellow", "not begun": "dim"}


def study_table(studies: Iterable[StudyUsage], root: str) -> Table:
    """Return a table with a row per study, in the order given, and one for all together."""
    studies = list(studies)
    table = Table(title=f"studies in {root}", title_justify="left")
    table.add_column("study", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("start model", no_wrap=True)
    for name in ("changed", "runs", "models", "weights", "checkpoints", "results", "together"):
        table.add_column(name, justify="right", no_wrap=True)
    for study in studies:
        sizes = (study.weights, study.checkpoints, study.rest, study.total)
        start = Path(study.record.start_folder).name if study.record else ""
        table.add_row(
            study.name, Text(study.state, STATE_STYLES[study.state]), start,
            _format_age(study.total), str(study.runs), str(study.models), *(format_size(size.bytes) for size in sizes),
        )  # fmt: skip
    table.add_section()
    table.add_row("all", *[""] * 8, format_size(sum(study.total.bytes for study in studies)))
    return table


def shared_table(usages: Iterable[SharedUsage]) -> Table:
    """Return a table with a row per shared entry: its size, and how much of it `--caches` frees."""
    table = Table(title="shared", title_justify="left")
    for name in ("in", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("changed", "together", "--caches frees"):
        table.add_column(name, justify="right", no_wrap=True)
    for usage in usages:
        removable = sum(usage.removable.values(), Size())
        frees = format_size(removable.bytes) if usage.removable else Text(usage.kept_because or "nothing", "dim")
        size = format_size(usage.size.bytes)
        table.add_row(usage.name, usage.description, _format_age(usage.size), size, frees)
    return table


def _format_age(size: Size) -> str:
    if not size.changed:
        return ""
    days = size.days
    return f"{days:.0f} d ago" if days >= 1 else f"{days * 24:.0f} h ago"
