"""What would be freed, with what is lost by it; and freeing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.errors import BadInput
from lethe.holdings.outline import remove
from lethe.holdings.registered import registered_runs
from lethe.holdings.shared import LEFT, Shared
from lethe.holdings.size import Size
from lethe.holdings.studies import Holding
from lethe.search.storages import open_storage
from lethe.storage import home, store
from lethe.sweep.identity import LEASE, hold


@dataclass(frozen=True)
class Item:
    """Something to free. `free` does it; what keeps it from that is a BadInput."""

    name: str
    size: Size
    note: str
    free: Callable[[], None]


def study_item(study: Holding, root: Path) -> Item:
    """A whole study, its trials in Optuna's storage included: a new one of the same name would go on with them."""
    return Item(f"study {study.name}", study.total, "; ".join(_lost(study)), lambda: _free_study(study, root))


def shared_items(kinds: Iterable[Shared], old_enough: Callable[[Size], bool], root: Path) -> Iterator[Item]:
    """What can be made again, by kind."""
    for kind in kinds:
        paths = [path for path, each in kind.entries.items() if old_enough(each)]
        if paths:
            whole = sum((kind.entries[path] for path in paths), Size())
            yield Item(kind.name, whole, f"{len(paths)} entries: {kind.about}", lambda paths=paths: _remove(paths, root))


def _lost(study: Holding) -> Iterator[str]:
    """What is gone for good."""
    yield f"{study.runs} runs"
    if study.state == "can be resumed":
        yield "it cannot be resumed then"
    front = study.front
    if front:
        try:
            safe = len(registered_runs(study.setting("tracking", "uri")) & front.keys())
            kept = f"{safe} of them registered, which keep MLflow's own files" if safe else "none of them registered"
        except BadInput as error:
            kept = f"whether they are registered is not known ({error})"
        yield f"front models: {len(front)}, {kept}"


def _free_study(study: Holding, root: Path) -> None:
    with hold(study.folder) as ours:
        if not ours:
            raise BadInput(f"study {study.name} is running")
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


def _forget_trials(study: Holding) -> None:
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
