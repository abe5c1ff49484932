"""The studies of the storage root by name, as commands take them: an id, the beginning of one, or a search space."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from functools import reduce
from pathlib import Path

from pydantic import ValidationError

from lethe.config.loading import assign, spaces
from lethe.config.study import Study, load_study, parse_study
from lethe.errors import UserError, unknown_name
from lethe.ops.disk_usage import StudyUsage, storage_snapshot, study_usage
from lethe.records import StudyRecord, TrialRecord
from lethe.scaling_records import ScalingRecord
from lethe.storage.paths import home, store

_ID = re.compile(r"(?P<space>.+)-[0-9a-f]{8}(?:-[0-9]+)?")


def is_study_id(name: str) -> bool:
    """Return whether `name` has the form of a study's id: `tofu-1a2b3c4d`, `tofu-1a2b3c4d-2`."""
    return _ID.fullmatch(name) is not None


def find_study(name: str, root: Path) -> StudyUsage:
    """Return the study of the snapshot `root` with the id `name`, else the latest of the search space `name`, else the
    only one whose id begins so. Raises UserError, with the ids that there are, where none or several do."""
    folders = [path for path in (root / "studies").glob("*") if path.is_dir() and path.name[0] != "."]
    ids = {path.name: path for path in sorted(folders)}
    if name in ids:
        return study_usage(ids[name])
    of_space = [path for known, path in ids.items() if (match := _ID.fullmatch(known)) and match["space"] == name]
    if of_space:
        return max(map(study_usage, of_space), key=lambda usage: usage.total.changed)
    begin = [known for known in ids if known.startswith(name)]
    if not begin:
        raise unknown_name("study", name, ids)
    if len(begin) > 1:
        raise UserError(f"several studies begin with {name!r}: choose from {', '.join(begin)}")
    return study_usage(ids[begin[0]])


def read_study(name: str) -> tuple[StudyUsage, StudyRecord | ScalingRecord]:
    """Return a stored study and its record; for `name` see `find_study`. Raises UserError where it has none yet."""
    with storage_snapshot() as root:
        usage = find_study(name, root)
        if usage.record is not None:
            return usage, usage.record
        scaling = usage.folder / "scaling.json"
        if scaling.is_file():
            return usage, ScalingRecord.model_validate_json(scaling.read_text(encoding="utf-8"))
    reason = "it has no results yet, or another version of lethe wrote them"
    raise UserError(f"study {usage.name} ({usage.state}): {reason}")


def read_search(name: str) -> tuple[StudyUsage, StudyRecord]:
    """Return a stored study and its record, as `read_study`. Raises UserError also where it is a scaling study."""
    usage, record = read_study(name)
    if isinstance(record, ScalingRecord):
        raise UserError(f"{usage.name} is a scaling study, which has no front: see lethe report {usage.name}")
    return usage, record


def is_record_file(name: str) -> bool:
    """Return whether `name` is a path to a report's study.json, packed or not, or to a folder that has one."""
    path = Path(name)
    return path.suffix in (".json", ".xz") or path.is_file() or (path / "study.json").is_file()


def read_record_file(name: str) -> StudyRecord:
    """Return the record in a report's study.json, which xz may have packed, or in a report's folder. Raises UserError
    for a file that has none."""
    path = Path(name)
    file = path / "study.json" if path.is_dir() else path
    try:
        raw = file.read_bytes()
        return StudyRecord.model_validate_json(lzma.decompress(raw) if file.suffix == ".xz" else raw)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValidationError, lzma.LZMAError) as error:
        raise UserError(f"{file}: no study.json of a report, or another version of lethe wrote it") from error


def load_named_study(name: str, overrides: Iterable[str] = ()) -> Study:
    """Return a study as `load_study` does; where `name` is a stored study's id, with that study's settings below the
    overrides."""
    if not is_study_id(name) or name in spaces():
        return load_study(name, overrides)
    _, record = read_search(name)
    return parse_study(reduce(assign, overrides, dict(record.study)))


def measured_trial(study: Study) -> tuple[str, float] | None:
    """Return the latest stored study with the same data, model and fixed settings, and the mean seconds of its complete
    trials; None where there is none, or the storage root is an object store."""
    if store():
        return None
    settings = study.model_dump(mode="json")
    folders = sorted((home() / "studies").glob("*"), key=lambda path: -path.stat().st_mtime)
    for usage in map(study_usage, folders):
        same = all(usage.setting(key) == settings[key] for key in ("benchmark", "model", "run"))
        trials = usage.record.trials if usage.record and same else ()
        seconds = [trial.metrics["seconds"] for trial in trials if trial.verdict == "complete"]
        if seconds:
            return usage.name, sum(seconds) / len(seconds)
    return None


def find_member(record: StudyRecord, name: str) -> TrialRecord:
    """Return the trial that `name` names, whose model the study has kept. Raises UserError for one that is not on the
    front, with those that are."""
    trial = find_trial(record, name)
    if not trial.on_front:
        members = ", ".join(str(member.number) for member in record.front) or "none"
        raise UserError(f"trial {name}: study {record.id} keeps the models of its front alone: choose from {members}")
    return trial


def find_trial(record: StudyRecord, name: str) -> TrialRecord:
    """Return the trial that `name` names by its number or by an alias. Raises UserError for neither."""
    trials = {trial.number: trial for trial in record.trials}
    number = record.aliases.get(name, int(name) if name.isdecimal() else None)
    if number in trials:
        return trials[number]
    if not trials:
        raise UserError(f"trial {name}: study {record.id} has no trials")
    choices = ", ".join([f"{min(trials)} to {max(trials)}", *record.aliases])
    raise UserError(f"trial {name}: study {record.id} has no such trial: choose from {choices}")
