"""A finished study where others read it: report, record and the front's runs under an s3://, gs:// or file:// address.

Written by the driver alone, through pyarrow; nothing of a running study is there. A study that is published again
replaces its files; `study.json`, the last one, says which models count: those of an earlier front stay beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.copies import there
from lethe.errors import Broken
from lethe.objects.address import parse
from lethe.objects.store import Store, first_line
from lethe.records import StudyRecord

KEY = "--publish"
OF_RUN = ("result.json", "rows.parquet", "model")


@dataclass(frozen=True)
class Shelf:
    """A place for studies."""

    store: Store

    def put(self, record: StudyRecord, report: Path) -> str:
        """Copy the study; its address. Broken where that fails: the study is kept, and `--resume` tries again."""
        url = self.store.address.url
        try:
            for source, name in (*_parts(record, report), (report / "study.json", "study.json")):
                self.store.put(f"{record.id}/{name}", source)
        except OSError as error:
            raise Broken(f"publishing to {url} failed: {first_line(error)}") from None
        return f"{url}/{record.id}"


def open_shelf(url: str) -> Shelf:
    """Raises BadInput, within seconds, unless a file can be written there. Credentials are the environment's."""
    store = Store(parse(url, KEY))
    store.check(KEY)
    return Shelf(store)


def _parts(record: StudyRecord, report: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names in the study's folder: the report, then each front member's run."""
    for path in sorted(report.iterdir()):
        if path.is_file() and path.name != "study.json":
            yield path, f"report/{path.name}"
    for trial in record.front:
        for part in OF_RUN:
            whole = Path(trial.folder) / part
            if not there(whole):
                continue
            for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
                if path.is_file():
                    yield path, f"front/{trial.run}/{path.relative_to(trial.folder).as_posix()}"
