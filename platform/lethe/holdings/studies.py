"""What each study holds: its runs with their results, models and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lethe.config.checkpoint import FOLDER as CHECKPOINT
from lethe.holdings.size import Size, files
from lethe.records import StudyRecord
from lethe.sweep.identity import LEASE, LOCK, held

RUNS, MODEL = "runs", "model"
State = Literal["running", "finished", "can be resumed", "not begun"]


@dataclass(frozen=True)
class Holding:
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


def holdings(root: Path) -> list[Holding]:
    """Every study, the one that changed last first."""
    folders = (path for path in root.glob("*") if path.is_dir() and not path.is_symlink() and path.name[0] != ".")
    return sorted(map(holding, folders), key=lambda found: -found.total.changed)


def holding(folder: Path) -> Holding:
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
    return Holding(
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
    from lethe.scaling.records import ScalingRecord

    try:
        return not ScalingRecord.model_validate_json((folder / "scaling.json").read_text()).interrupted
    except (OSError, ValidationError):
        return False


def _record(path: Path) -> StudyRecord | None:
    try:
        return StudyRecord.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None
