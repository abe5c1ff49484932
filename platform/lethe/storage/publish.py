"""Publishing a finished study: its report, its record and the front's runs under an s3://, gs:// or file:// address.

Only the driver writes, when the study is over. Publishing a study again replaces its files; `study.json`, written last,
says which models count: those of an earlier front are not removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.errors import StudyBrokenError
from lethe.records import StudyRecord
from lethe.storage.object_store import ObjectStore, error_text, parse_address
from lethe.storage.replica import temporary_copy

PUBLISH_OPTION = "--publish"
RUN_PARTS = ("result.json", "rows.parquet", "model")


@dataclass(frozen=True)
class Publisher:
    """Copies studies into folders of `store`, one per study."""

    store: ObjectStore

    def put(self, record: StudyRecord, report: Path) -> str:
        """Copy the study of `record`, whose report is in the folder `report`; return the address of its copy. Raises
        StudyBrokenError where that fails: the study is kept, and `--resume` tries again."""
        url = self.store.address.url
        try:
            for source, name in _files_to_publish(record, report):
                self.store.put(f"{record.id}/{name}", source)
            self.store.put(f"{record.id}/study.json", report / "study.json")
        except OSError as error:
            raise StudyBrokenError(f"publishing to {url} failed: {error_text(error)}") from None
        return f"{url}/{record.id}"


def open_publisher(url: str) -> Publisher:
    """Return a publisher to the address `url`; credentials are the environment's. Raises UserError, within seconds,
    unless a file can be written there."""
    store = ObjectStore(parse_address(url, PUBLISH_OPTION))
    store.check(PUBLISH_OPTION)
    return Publisher(store)


def _files_to_publish(record: StudyRecord, report: Path) -> Iterator[tuple[Path, str]]:
    """Yield files and their names in the published folder: the report's but `study.json`, then each front member's."""
    for path in sorted(report.iterdir()):
        if path.is_file() and path.name != "study.json":
            yield path, f"report/{path.name}"
    for trial in record.front:
        for name in RUN_PARTS:
            with temporary_copy(Path(trial.folder) / name) as part:
                if part is None:
                    continue
                for path in _files(part):
                    yield path, f"front/{trial.run}/{path.relative_to(part.parent).as_posix()}"


def _files(path: Path) -> list[Path]:
    """Return all files below the folder `path`, or `path` itself where it is a file."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
