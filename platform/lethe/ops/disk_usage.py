"""Usage of the storage root: bytes and ages of each study (`StudyUsage`) and of the rest (`SharedUsage`).

Everything is read from `storage_snapshot`: the root itself, or for an object store a folder with its objects' names,
sizes and ages. Others may be writing meanwhile: files that vanish are left out.
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

from pydantic import ValidationError

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.errors import UserError
from lethe.records import StudyRecord
from lethe.scaling_records import ScalingRecord
from lethe.storage.object_store import ObjectInfo, ObjectStore, store_message
from lethe.storage.paths import home, store
from lethe.storage.replica import remove_local
from lethe.study.resume import LEASE, LOCK, held

DAY_S = 86_400
RUNS, MODEL = "runs", "model"
WITH_CONTENT = (
    "study.json",
    "scaling.json",
)  # files of a snapshot that have their content; the others are only counted
REMOVED_PREFIX = ".gc-"  # of a study's folder while it is removed


@dataclass(frozen=True)
class Size:
    """Bytes, and when the newest of them were written, in seconds since 1970; 0 where there is nothing."""

    bytes: int = 0
    changed: float = 0.0

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, max(self.changed, other.changed))

    @property
    def days(self) -> float:
        """Days since it changed."""
        return (time.time() - self.changed) / DAY_S


def file_sizes(path: Path) -> Iterator[tuple[Path, Size]]:
    """Yield every file at or below `path` with its size; links are not followed.

    Files that vanish meanwhile or may not be read are left out.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                yield from file_sizes(child)
        else:
            status = path.lstat()
            yield path, Size(status.st_size, status.st_mtime)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return


def total_size(path: Path) -> Size:
    """Return the size of all files at or below `path`; an empty folder has its own age."""
    total = sum((size for _, size in file_sizes(path)), Size())
    if total.changed or not path.exists():
        return total
    return Size(0, path.stat().st_mtime)


def format_size(count: float) -> str:
    """Return a number of bytes in the largest fitting unit: `12 B`, `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def storage_snapshot() -> Iterator[Path]:
    """Provide the storage root as a folder: itself, or for an object store a temporary folder with every object's name,
    size and age, of which only those named in WITH_CONTENT have their content.

    Raises UserError where the store cannot be read, and for a root that is a file.
    """
    if (objects := store()) is None:
        if not next(path for path in (home(), *home().parents) if path.exists()).is_dir():
            raise UserError(f"LETHE_HOME={home()} is no folder, and none can be made there")
        yield home()
        return
    with tempfile.TemporaryDirectory(prefix="lethe-outline-") as temporary:
        try:
            _outline(objects, objects.list_objects(), Path(temporary))
        except OSError as error:
            raise UserError(f"cannot read {objects.address.url}: {store_message(error)}") from None
        yield Path(temporary)


def _outline(objects: ObjectStore, infos: list[ObjectInfo], root: Path) -> None:
    for info in infos:
        path = root / info.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name in WITH_CONTENT:
            objects.fetch(info.name, path)
        else:
            path.touch()
            os.truncate(path, info.bytes)  # sparse: it takes no space
        os.utime(path, (info.modified, info.modified))


def remove(path: Path, root: Path) -> None:
    """Remove a file or folder of the snapshot `root`, with the objects and local copies that it stands for."""
    if objects := store():
        name = path.relative_to(root)
        objects.remove(name.as_posix())
        remove_local(home() / name)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


State = Literal["running", "finished", "can be resumed", "not begun"]


@dataclass(frozen=True)
class StudyUsage:
    """A study's folder. `runs` counts its runs, `models` those of them with weights; `rest` is results, scores, report.

    `record` is the record of its last whole session: None where that was killed, or where it is no search.
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
        """Size of the whole folder."""
        return self.weights + self.checkpoints + self.rest

    @property
    def status(self) -> str:
        """The state in words; `interrupted` tells a study that can be resumed and has results."""
        return "interrupted" if self.state == "can be resumed" and self.record else self.state

    @property
    def front(self) -> dict[str, Path]:
        """The folders of the front's models that are here, by run."""
        members = self.record.front if self.record else ()
        models = {member.run: self._local_folder(member.folder) / MODEL for member in members if member.folder}
        return {run: folder for run, folder in models.items() if folder.is_dir()}

    def _local_folder(self, folder: str) -> Path:
        """Return a run's folder in this snapshot; the record has it where the study lay when it ran."""
        parts = Path(folder).parts
        return self.folder.joinpath(*parts[parts.index(self.name) + 1 :]) if self.name in parts else Path(folder)

    def setting(self, *keys: str) -> Any:
        """Return the value at these keys of the study's configuration, None where it is not known."""
        value: Any = self.record.study if self.record else None
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def study_usages(root: Path) -> list[StudyUsage]:
    """Return the usage of every study in the folder `root`, the one that changed last first."""
    folders = (path for path in root.glob("*") if path.is_dir() and not path.is_symlink() and path.name[0] != ".")
    return sorted(map(study_usage, folders), key=lambda usage: -usage.total.changed)


def study_usage(folder: Path) -> StudyUsage:
    """Return the usage of the study in `folder`."""
    parts = {MODEL: Size(), CHECKPOINT: Size(), "": Size()}
    runs: set[Path] = set()
    models: set[Path] = set()
    for path, size in file_sizes(folder):
        run, part = _run_and_part(path.relative_to(folder))
        if run is not None:
            runs.add(run)
            if part == MODEL:
                models.add(run)
        if path.name not in (LOCK, LEASE):
            parts[part if part in parts else ""] += size
    record = _read_study_record(folder / "study.json")
    return StudyUsage(
        name=folder.name,
        folder=folder,
        state=_state(folder, record),
        runs=len(runs),
        models=len(models),
        weights=parts[MODEL],
        checkpoints=parts[CHECKPOINT],
        rest=parts[""],
        record=record,
    )


def _run_and_part(path: Path) -> tuple[Path | None, str]:
    """Return the run that a file of a study (or of a comparison's member) belongs to, and the part of it that it is in;
    (None, "") for other files."""
    parts = path.parts
    if RUNS in parts and len(parts) > (at := parts.index(RUNS)) + 2:
        return Path(*parts[: at + 2]), parts[at + 2]
    return None, ""


def _state(folder: Path, record: StudyRecord | None) -> State:
    if is_running(folder):
        return "running"
    if (record and not record.interrupted) or _is_finished_scaling(folder):
        return "finished"
    return "can be resumed" if _has_begun(folder) else "not begun"


def is_running(folder: Path) -> bool:
    """Tell whether a session holds the study; True also where that may not be known."""
    try:
        return held(folder)
    except PermissionError:
        return True


def _has_begun(folder: Path) -> bool:
    # The files that a study writes first; a scaling study into its members' folders, or a point.
    first_files = ("baselines.json", "members/*/baselines.json", "points/*")
    return any(True for pattern in first_files for _ in folder.glob(pattern))


def _is_finished_scaling(folder: Path) -> bool:
    try:
        return not ScalingRecord.model_validate_json((folder / "scaling.json").read_text()).interrupted
    except (OSError, ValidationError):
        return False


def _read_study_record(path: Path) -> StudyRecord | None:
    try:
        return StudyRecord.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None


# Entry of the storage root: its description, and whether it is made again when it is missing.
SHARED = {
    "cache/scores": ("scores of models by content", True),
    "cache/adapters": ("Fisher weights and SVDs", True),
    "cache/registered": ("copies of registered models", True),
    "cache/tasks": ("task files that studies name by content", False),
    "cache/objectives": ("users' own losses, likewise", False),
    "benchmarks": ("the embedded benchmarks' files", True),
    "models": ("prepared models", True),
    "training": ("checkpoints of models in training", True),
    "groups": ("files of worker groups", True),
    "mlflow.db": ("MLflow's runs: `mlflow gc`", False),
    "mlartifacts": ("MLflow's files, registered models too: `mlflow gc`", False),
    "optuna.db": ("Optuna's trials", False),
    "services": ("`python -m platform.services`", False),
}


@dataclass(frozen=True)
class SharedUsage:
    """An entry of the storage root that studies share.

    `removable`: the files and folders that can be freed one by one; `kept_because`: the reason where none can.
    """

    name: str
    description: str
    size: Size
    removable: dict[Path, Size]
    kept_because: str = ""


def shared_usages(root: Path, studies: Iterable[StudyUsage]) -> list[SharedUsage]:
    """Return everything in the storage root that is no study; `studies` are those whose needs are kept."""
    studies = list(studies)
    usages = [_shared_usage(root, name, studies) for name in SHARED if (root / name).exists()]
    half_removed = {path: total_size(path) for path in (root / "studies").glob(f"{REMOVED_PREFIX}*")}
    if half_removed:
        total = sum(half_removed.values(), Size())
        usages.append(SharedUsage("studies", "what an interrupted removal left", total, half_removed))
    return usages


def _shared_usage(root: Path, name: str, studies: list[StudyUsage]) -> SharedUsage:
    description, made_again = SHARED[name]
    if not made_again:
        return SharedUsage(name, description, total_size(root / name), {}, "kept")
    entries = {path: total_size(path) for path in sorted((root / name).glob("*"))}
    total = sum(entries.values(), Size())
    if any(study.state == "running" for study in studies):
        return SharedUsage(name, description, total, {}, "a study is running")
    if name == "models":
        return _models_usage(description, entries, total, studies)
    if name in (
        "groups",
        "training",
    ):  # younger ones may belong to a session that is starting, to `score` or to `doctor`
        entries = {path: size for path, size in entries.items() if size.days > 1}
    return SharedUsage(name, description, total, entries)


def _models_usage(description: str, entries: dict[Path, Size], total: Size, studies: list[StudyUsage]) -> SharedUsage:
    """Return the prepared models; those that a study with a record starts from are not removable."""
    # A study that can be resumed knows its models by their contents, and training them again on another machine may
    # make others: then all stay. An adapter on a front is of no use without its start model.
    resumable = [study.name for study in studies if study.state == "can be resumed"]
    if resumable:
        return SharedUsage("models", description, total, {}, f"{resumable[0]} can be resumed")
    needed = set(_start_models(studies))
    removable = {path: size for path, size in entries.items() if path.name not in needed}
    reason = "" if removable or not entries else "studies start from them"
    return SharedUsage("models", description, total, removable, reason)


def _start_models(studies: list[StudyUsage]) -> Iterator[str]:
    """Yield the names of the studies' start models; their folders may be another machine's, or outside the snapshot."""
    for study in studies:
        if study.record and study.record.start_folder:
            yield Path(study.record.start_folder).name
