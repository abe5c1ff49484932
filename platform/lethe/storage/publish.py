"""A finished study where others read it: report, record and the front's runs under an s3://, gs:// or file:// address.

Written by the driver alone, through pyarrow; nothing of a running study is there. A study that is published again
replaces its files; `study.json`, the last one, says which models count: those of an earlier front stay beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.errors import StudyBrokenError
from lethe.records import StudyRecord
from lethe.storage.object_store import ObjectStore, error_text, parse_address
from lethe.storage.replica import temporary_copy

PUBLISH_VARIABLE = "--publish"
OF_RUN = ("result.json", "rows.parquet", "model")


@dataclass(frozen=True)
class Publisher:
    """A place for studies."""

    store: ObjectStore

    def put(self, record: StudyRecord, report: Path) -> str:
        """Copy the study; its address. Broken where that fails: the study is kept, and `--resume` tries again."""
        url = self.store.address.url
        try:
            for source, name in _parts(record, report):
                self.store.put(f"{record.id}/{name}", source)
            self.store.put(f"{record.id}/study.json", report / "study.json")
        except OSError as error:
            raise StudyBrokenError(f"publishing to {url} failed: {error_text(error)}") from None
        return f"{url}/{record.id}"


def open_publisher(url: str) -> Publisher:
    """Raises BadInput, within seconds, unless a file can be written there. Credentials are the environment's."""
    store = ObjectStore(parse_address(url, PUBLISH_VARIABLE))
    store.check(PUBLISH_VARIABLE)
    return Publisher(store)


def _parts(record: StudyRecord, report: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names in the study's folder: the report, then each front member's run."""
    for path in sorted(report.iterdir()):
        if path.is_file() and path.name != "study.json":
            yield path, f"report/{path.name}"
    for trial in record.front:
        for part in OF_RUN:
            with temporary_copy(Path(trial.folder) / part) as whole:
                for path in _files(whole) if whole else ():
                    yield path, f"front/{trial.run}/{path.relative_to(whole.parent).as_posix()}"


def _files(whole: Path) -> list[Path]:
    return sorted(path for path in whole.rglob("*") if path.is_file()) if whole.is_dir() else [whole]
