"""A study with losses from a user's own files: these are stored and tried before it starts."""

from __future__ import annotations

from typing import Any, TypeVar

from lethe.config.comparison import Compare
from lethe.config.objective import File
from lethe.config.scaling import ScalingStudy
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.study.preflight import corners

StudyT = TypeVar("StudyT", Study, ScalingStudy)


def with_stored_objectives(study: StudyT) -> StudyT:
    """Return the study with its files of losses copied into the storage root and named by content, once each has kept
    its contract on a tiny batch; the study itself where it has none. Raises UserError for a file that does not."""
    if any("objective.path" in part.space for part in study.parts()):
        raise UserError("space.objective.path: files cannot be searched: give each an arm of its own under compare")
    files = list(dict.fromkeys(r.objective for r in corners(study) if isinstance(r.objective, File)))
    if not files:
        return study
    from lethe.unlearning.objectives import from_file  # imports torch

    stored = {}
    for objective in files:
        path = objective.path
        try:
            stored[path] = from_file.store(path)
        except UserError as error:
            raise UserError(f"objective.path: {error}") from None
        from_file.check(objective.model_copy(update={"path": stored[path]}), path)
    renamed = _renamed(study.model_dump(mode="json"), stored)
    changes: dict[str, Any] = {"run": renamed["run"]}
    if study.compare:
        changes["compare"] = Compare.model_validate(renamed["compare"])
    if isinstance(study, ScalingStudy):
        changes["scaling"] = type(study.scaling).model_validate(renamed["scaling"])
    return study.model_copy(update=changes)


def _renamed(value: Any, stored: dict[str, str]) -> Any:
    """Return a study's JSON with the address of each file in the place of its path."""
    if isinstance(value, dict):
        is_file = value.get("path") in stored and value.get("name") in ("file", None)
        changed = {key: _renamed(item, stored) for key, item in value.items()}
        return changed | ({"path": stored[value["path"]]} if is_file else {})
    return [_renamed(item, stored) for item in value] if isinstance(value, list) else value
