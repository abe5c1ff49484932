"""Removing the text of rows from what studies left: their files, reports, scores and MLflow's artifacts. Models,
metrics and verdicts stay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.data.privacy import ShownText
from lethe.errors import UserError
from lethe.evaluation.rows import write_rows
from lethe.ops.disk_usage import MODEL, StudyUsage
from lethe.records import StudyRecord
from lethe.reporting.report import write_report
from lethe.storage.paths import atomic_write, home, store
from lethe.storage.replica import delete, evict_local, temporary_copy
from lethe.study.resume import hold
from lethe.tracking.connection import resolve_uri, store_of
from lethe.tracking.model_registry import model_name
from lethe.tracking.stored_text import STUDY_JSON, forget_in_mlflow, without_text

NO_ROWS = ShownText("none", lambda: ())


def forget_text(studies: Iterable[StudyUsage], root: Path, reports: Path, *, every: bool, dry: bool) -> Counter[str]:
    """Remove the text of rows that these studies of the snapshot `root` left, and their reports in the folder
    `reports`; return how much of what it was. `every`: they are all studies, so that scores which none of them needs
    and MLflow's runs of others count, too; `dry`: nothing is removed.

    Raises UserError where MLflow cannot be asked; everything else is done by then.
    """
    studies, removed = list(studies), Counter[str]()
    for study in studies:
        with hold(study.folder) as is_ours:
            if not is_ours:
                raise UserError(f"study {study.name} is running: stop it first")
            _clean_study(study, root, removed, dry)
        for folder in (reports / study.name, home() / study.folder.relative_to(root) / "report"):
            _clean_report(folder, removed, dry)
    _clean_scores(None if every else {str(_data(study)) for study in studies}, root, removed, dry)
    if store():  # copies of the data for other nodes, which the next session puts there again
        for path in {root / "benchmarks" / str(_data(study)) for study in studies}:
            if path.exists():
                removed["copies of data"] += 1
                if not dry:
                    delete(home() / path.relative_to(root))
    for uri, name in sorted({(_uri(study), None if every else study.name) for study in studies}, key=str):
        if uri is not None:
            forget_in_mlflow(uri, name, _write_report, removed, dry)
    return removed


def _data(study: StudyUsage) -> str | None:
    return study.record.digests["data"] if study.record else None


def _uri(study: StudyUsage) -> str | None:
    tracks = study.setting("tracking", "enabled")
    return resolve_uri(study.setting("tracking", "uri")) if tracks is not False else None


def _clean_study(study: StudyUsage, root: Path, removed: Counter[str], dry: bool) -> None:
    """Clean the files in a study's folder, but for models and checkpoints."""
    for path in sorted(study.folder.rglob("*")):
        if path.is_file() and not {MODEL, CHECKPOINT} & {*path.parts}:
            _clean_file(home() / path.relative_to(root), removed, dry)


def _clean_file(path: Path, removed: Counter[str], dry: bool) -> None:
    """Rewrite a JSON record or a file of rows without text; other files have none."""
    if path.suffix not in (".json", ".parquet") or path.name in ("truth.json", "truth-interim.json"):
        return
    with temporary_copy(path) as copy:
        if copy is None:
            return
        found: Counter[str] = Counter()
        if path.suffix == ".parquet":
            columns = _columns(copy)
            cleaned = NO_ROWS.columns(columns)
            if cleaned == columns:
                return
            removed["files of rows"] += 1
            if not dry:
                write_rows(path, cleaned)
                evict_local(path)
            return
        try:
            content = without_text(json.loads(copy.read_text(encoding="utf-8")), found)
        except ValueError:  # no JSON: nothing of ours
            return
    removed += found
    if found and not dry:
        atomic_write(path, json.dumps(content, indent=1))
        evict_local(path)


def _columns(path: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return columns


def _clean_report(folder: Path, removed: Counter[str], dry: bool) -> None:
    """Write the report in `folder` again from its record, which has no text then."""
    path = folder / STUDY_JSON
    if not path.is_file():
        return
    found: Counter[str] = Counter()
    cleaned = without_text(json.loads(path.read_text(encoding="utf-8")), found)
    html = folder / "report.html"
    before = html.read_bytes() if html.is_file() else b""
    if dry:
        removed["reports"] += bool(found)
        return
    if _write_report(cleaned, folder):
        removed["reports"] += html.read_bytes() != before
    else:
        for page in folder.glob("*.html"):
            page.unlink()
        atomic_write(path, json.dumps(cleaned, indent=1))


def _write_report(stored: Any, folder: Path) -> bool:
    """Write the report of a stored record into `folder`; return False for a record of another version of lethe."""
    try:
        record = StudyRecord.model_validate(stored)
    except ValidationError:
        return False
    registered = any(trial.version for trial in record.trials)
    write_report(record, folder, store=store_of(record.study), model=model_name(record.space) if registered else "")
    return True


def _clean_scores(data: set[str] | None, root: Path, removed: Counter[str], dry: bool) -> None:
    """Delete the stored scores with text, of the `data` with these digests or of all: they are measured again when they
    are needed."""
    for path in _score_files(root):
        name = home() / path.relative_to(root)
        with temporary_copy(name) as copy:
            try:
                content = json.loads(copy.read_text(encoding="utf-8")) if copy else {}
                of, scores = json.loads(content["of"]), json.loads(content["scores"])
            except (ValueError, KeyError, TypeError):
                continue
        if of.get("text", "keep") != "keep" or (data is not None and of.get("data") not in data):
            continue
        if not scores.get("samples"):
            continue
        removed["stored scores"] += 1
        if not dry:
            delete(name.with_suffix(".parquet"))
            delete(name)


def _score_files(root: Path) -> Iterator[Path]:
    yield from sorted((root / "cache" / "scores").glob("*.json"))
