"""Bytes and ages of folders that others may be writing in.

The storage root as a folder to look at: itself, or for objects an outline of them that takes no space.

What each study holds: its runs with their results, models and checkpoints.

What studies share: caches and prepared models, made again when they are missed; and what is not ours to free.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.errors import UserError
from lethe.records import StudyRecord
from lethe.storage.object_store import ObjectInfo, ObjectStore, first_line
from lethe.storage.paths import home, store
from lethe.storage.replica import remove_local
from lethe.study.resume import LEASE, LOCK, held
from pydantic import ValidationError

DAY_S = 86_400


@dataclass(frozen=True)
class Size:
    """`changed`: when the newest of it was written, in seconds since 1970; 0 where there is nothing."""

    bytes: int = 0
    changed: float = 0.0

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, max(self.changed, other.changed))

    @property
    def days(self) -> float:
        """Since it changed."""
        return (time.time() - self.changed) / DAY_S


def files(path: Path) -> Iterator[tuple[Path, Size]]:
    """Every file in `path`, which may be one itself. What vanishes meanwhile or is closed to us is left out; links are
    not followed."""
    try:
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                yield from files(child)
        else:
            status = path.lstat()
            yield path, Size(status.st_size, status.st_mtime)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return


def size(path: Path) -> Size:
    """All of it together; an empty folder is as old as it looks."""
    found = sum((each for _, each in files(path)), Size())
    if found.changed or not path.exists():
        return found
    return Size(0, path.stat().st_mtime)


def format_size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


READ = ("study.json", "scaling.json")  # what is not only counted


@contextmanager
def storage_snapshot() -> Iterator[Path]:
    """A folder with every file's name, size and age; of objects only those in READ have their content."""
    if (objects := store()) is None:
        yield home()
        return
    with tempfile.TemporaryDirectory(prefix="lethe-outline-") as temporary:
        try:
            _draw(objects, objects.list_objects(), Path(temporary))
        except OSError as error:
            raise UserError(f"cannot read {objects.address.url}: {first_line(error)}") from None
        yield Path(temporary)


def _draw(objects: ObjectStore, found: list[ObjectInfo], root: Path) -> None:
    for each in found:
        path = root / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name in READ:
            objects.fetch(each.name, path)
        else:
            path.touch()
            os.truncate(path, each.bytes)
        os.utime(path, (each.modified, each.modified))


def remove(path: Path, root: Path) -> None:
    """Remove a file or folder of the outline, and what it stands for."""
    if objects := store():
        name = path.relative_to(root)
        objects.remove(name.as_posix())
        remove_local(home() / name)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


RUNS, MODEL = "runs", "model"
State = Literal["running", "finished", "can be resumed", "not begun"]


@dataclass(frozen=True)
class StudyUsage:
    """One study. `runs` counts folders, `models` those of them that have weights; `rest` is results, scores, report.

    `record` is what its last whole session left: None where it was killed, or is no search.
    """

    name: str
    folder: Path
    state: State
    runs: int
    models: int
    weights: Size
    checkpoints: Size
    rest: Size
    record: StudyRecord | None

    @property
    def total(self) -> Size:
        """All of it."""
        return self.weights + self.checkpoints + self.rest

    @property
    def front(self) -> dict[str, Path]:
        """Models of the front that are here, by run."""
        members = self.record.front if self.record else ()
        found = {member.run: self._here(member.folder) / MODEL for member in members if member.folder}
        return {run: folder for run, folder in found.items() if folder.is_dir()}

    def _here(self, folder: str) -> Path:
        """A run's folder, which the record knows by where the study lay when it ran."""
        parts = Path(folder).parts
        return self.folder.joinpath(*parts[parts.index(self.name) + 1 :]) if self.name in parts else Path(folder)

    def setting(self, *keys: str) -> Any:
        """A value of the study's configuration, None where that is not known."""
        value: Any = self.record.study if self.record else None
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def study_usages(root: Path) -> list[StudyUsage]:
    """Every study, the one that changed last first."""
    folders = (path for path in root.glob("*") if path.is_dir() and not path.is_symlink() and path.name[0] != ".")
    return sorted(map(study_usage, folders), key=lambda found: -found.total.changed)


def study_usage(folder: Path) -> StudyUsage:
    """What lies in a study's folder."""
    parts = {MODEL: Size(), CHECKPOINT: Size(), "": Size()}
    runs, models = set(), set()
    for path, each in files(folder):
        run, part = _place(path.relative_to(folder))
        runs.add(run)
        if part == MODEL:
            models.add(run)
        if path.name not in (LOCK, LEASE):
            parts[part if part in parts else ""] += each
    record = _record(folder / "study.json")
    return StudyUsage(
        name=folder.name,
        folder=folder,
        state=_state(folder, record),
        runs=len(runs - {None}),
        models=len(models),
        weights=parts[MODEL],
        checkpoints=parts[CHECKPOINT],
        rest=parts[""],
        record=record,
    )


def running(folder: Path) -> bool:
    """Whether a session holds the study, or nobody lets us know."""
    try:
        return held(folder)
    except PermissionError:
        return True


def _place(path: Path) -> tuple[Path | None, str]:
    """The run that a file belongs to, also one of a comparison's member, and the part of it."""
    parts = path.parts
    if RUNS in parts and len(parts) > (at := parts.index(RUNS)) + 2:
        return Path(*parts[: at + 2]), parts[at + 2]
    return None, ""


def _state(folder: Path, record: StudyRecord | None) -> State:
    if running(folder):
        return "running"
    if (record and not record.interrupted) or _scaling_ended(folder):
        return "finished"
    begun = next(_begun(folder), None)
    return "can be resumed" if begun else "not begun"


def _begun(folder: Path) -> Iterator[Path]:
    """What a study writes first; a scaling study into its members' folders, or a point."""
    yield from folder.glob("baselines.json")
    yield from folder.glob("members/*/baselines.json")
    yield from folder.glob("points/*")


def _scaling_ended(folder: Path) -> bool:
    from lethe.scaling_records import ScalingRecord

    try:
        return not ScalingRecord.model_validate_json((folder / "scaling.json").read_text()).interrupted
    except (OSError, ValidationError):
        return False


def _record(path: Path) -> StudyRecord | None:
    try:
        return StudyRecord.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None


LEFT = ".gc-"  # how a study's folder is called while it is removed
# Folder in the storage root, what it is, and whether it is made again when missed.
KINDS = {
    "cache/scores": ("scores of models by content", True),
    "cache/adapters": ("Fisher weights and SVDs", True),
    "cache/registered": ("copies of registered models", True),
    "cache/tasks": ("task files that studies name by content", False),
    "benchmarks": ("the embedded benchmarks' files", True),
    "models": ("prepared models", True),
    "groups": ("files of worker groups", True),
    "studies": ("", False),
    "mlflow.db": ("MLflow's runs: `mlflow gc`", False),
    "mlartifacts": ("MLflow's files, registered models too: `mlflow gc`", False),
    "optuna.db": ("Optuna's trials", False),
    "services": ("`python -m platform.services`", False),
}


@dataclass(frozen=True)
class SharedUsage:
    """One kind: `entries` are what can be freed one by one, `why` the reason where none of it can."""

    name: str
    about: str
    size: Size
    entries: dict[Path, Size]
    why: str = ""


def shared_usages(root: Path, studies: Iterable[StudyUsage]) -> list[SharedUsage]:
    """Everything in the storage root that is no study."""
    studies = list(studies)
    found = [_kind(root, name, studies) for name in KINDS if name != "studies" and (root / name).exists()]
    left = {path: size(path) for path in (root / "studies").glob(f"{LEFT}*")}
    if left:
        found.append(SharedUsage("studies", "what an interrupted removal left", sum(left.values(), Size()), left))
    return found


def _kind(root: Path, name: str, studies: list[StudyUsage]) -> SharedUsage:
    about, again = KINDS[name]
    if not again:
        return SharedUsage(name, about, size(root / name), {}, "kept")
    entries = {path: size(path) for path in sorted((root / name).glob("*"))}
    whole = sum(entries.values(), Size())
    if any(study.state == "running" for study in studies):
        return SharedUsage(name, about, whole, {}, "a study is running")
    if name == "models":
        return _models(about, entries, whole, studies)
    if name == "groups":  # of a session that is starting, `score` and `doctor`, too
        entries = {path: each for path, each in entries.items() if each.days * DAY_S > DAY_S}
    return SharedUsage(name, about, whole, entries)


def _models(about: str, entries: dict[Path, Size], whole: Size, studies: list[StudyUsage]) -> SharedUsage:
    """An adapter on a front is of no use without its start model. A study that can be resumed knows its models by
    their contents, and who trains them again on another machine may get others: then all stay."""
    resumable = [study.name for study in studies if study.state == "can be resumed"]
    if resumable:
        return SharedUsage("models", about, whole, {}, f"{resumable[0]} can be resumed")
    needed = set(_start_models(studies))
    free = {path: each for path, each in entries.items() if path.name not in needed}
    return SharedUsage("models", about, whole, free, "" if free or not entries else "studies start from them")


def _start_models(studies: list[StudyUsage]) -> Iterator[str]:
    """Their names: a record may be from another machine, and with objects from another folder than this outline."""
    for study in studies:
        if study.record and study.record.start_folder:
            yield Path(study.record.start_folder).name
