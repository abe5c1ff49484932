"""A finished study where others read it: report, record and the front's runs under an s3://, gs:// or file:// address.

Written by the driver alone, through pyarrow; nothing of a running study is there. A study that is published again
replaces its files; `study.json`, the last one, says which models count: those of an earlier front stay beside them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from lethe.config.addresses import without_password
from lethe.errors import BadInput, Broken
from lethe.records import StudyRecord

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "file")
CONNECT_S, REQUEST_S = 5.0, 60.0
PROBE = ".lethe-writes-here"  # stays: what may write need not be allowed to delete
PIECE = 16 << 20
OF_RUN = ("result.json", "rows.parquet", "model")


@dataclass(frozen=True)
class Shelf:
    """A place for studies. `url` as it may be shown, `folder` as the file system knows it."""

    url: str
    files: FileSystem
    folder: str

    def put(self, record: StudyRecord, report: Path) -> str:
        """Copy the study; its address. Broken where that fails: the study is kept, and `--resume` tries again."""
        try:
            for source, name in (*_parts(record, report), (report / "study.json", "study.json")):
                with source.open("rb") as content:
                    self.write(f"{record.id}/{name}", content)
        except OSError as error:
            raise Broken(f"publishing to {self.url} failed: {_first(error)}") from None
        return f"{self.url}/{record.id}"

    def write(self, name: str, content: BinaryIO) -> None:
        """One file, in pieces. OSError where the store has not as many bytes as it was given."""
        path = f"{self.folder}/{name}"
        if self.files.type_name == "local":
            self.files.create_dir(path.rpartition("/")[0])
        with self.files.open_output_stream(path) as stream:
            shutil.copyfileobj(content, stream, PIECE)
        given, stored = content.tell(), self.files.get_file_info(path).size
        if stored != given:
            raise OSError(f"of the {given} bytes of {name} the store has made {stored}")


def open_shelf(url: str) -> Shelf:
    """Raises BadInput, within seconds, unless a file can be written there. Credentials are the environment's."""
    parts = urlsplit(url)
    shown = without_password(url).rstrip("/")
    if parts.scheme not in SCHEMES:
        raise BadInput(f"--publish {shown}: an address begins with s3://, gs:// or file://")
    if parts.username or parts.password or parts.query:
        raise BadInput(f"--publish {shown}: keys and options belong in the environment (AWS_*, GOOGLE_*), not in the address")
    if bool(parts.netloc) == (parts.scheme == "file"):
        raise BadInput(f"--publish {shown}: say s3://bucket/folder, gs://bucket/folder or file:///folder")
    shelf = Shelf(shown, _file_system(parts.scheme), (parts.netloc + unquote(parts.path)).rstrip("/"))
    try:
        shelf.write(PROBE, BytesIO(b"lethe"))
    except OSError as error:
        raise BadInput(f"--publish {shown}: cannot write there: {_first(error)}") from None
    return shelf


def _file_system(scheme: str) -> FileSystem:
    from pyarrow import fs

    if scheme == "file":
        return fs.LocalFileSystem()
    if scheme == "gs":
        from datetime import timedelta

        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_S))
    # pyarrow takes keys and region from the environment as other clients do, the endpoint not.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _parts(record: StudyRecord, report: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names in the study's folder: the report, then each front member's run."""
    for path in sorted(report.iterdir()):
        if path.is_file() and path.name != "study.json":
            yield path, f"report/{path.name}"
    for trial in record.front:
        for part in OF_RUN:
            whole = Path(trial.folder) / part
            for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
                if path.is_file():
                    yield path, f"front/{trial.run}/{path.relative_to(trial.folder).as_posix()}"


def _first(error: OSError) -> str:
    """Without the last line's request id, and on one line."""
    return str(error).splitlines()[0].partition(" (Request ID")[0][:300]
