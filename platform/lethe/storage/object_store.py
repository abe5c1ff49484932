"""Addresses of objects: s3://bucket/folder, gs://bucket/folder, file:///folder; credentials are the environment's.

Files and folders as objects under one address. An object appears whole; a folder counts once its manifest is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from lethe.config.addresses import without_password
from lethe.errors import DISK_FULL_ERRNOS, StoreUnreachableError, UserError
from lethe.storage.paths import atomic_file

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem


SCHEMES = ("s3", "gs", "file")
CONNECT_S, REQUEST_S = 5.0, 60.0


@dataclass(frozen=True)
class Address:
    """`url` as it may be shown, without a slash at its end; `folder` as the file system of `scheme` knows it."""

    url: str
    scheme: str
    folder: str

    def open(self) -> FileSystem:
        """The file system, which has not connected yet."""
        from pyarrow import fs

        if self.scheme == "file":
            return fs.LocalFileSystem()
        if self.scheme == "gs":
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


def parse_address(url: str, key: str) -> Address:
    """Raises BadInput, which calls the address `key`, for one that is none or has credentials in it."""
    shown = without_password(url).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{key} {shown}: {error}") from None
    if parts.scheme not in SCHEMES:
        raise UserError(f"{key} {shown}: an address begins with s3://, gs:// or file://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"{key} {shown}: keys and options belong in the environment (AWS_*, GOOGLE_*), not in the address"
        )
    if bool(parts.netloc) == (parts.scheme == "file"):
        raise UserError(f"{key} {shown}: say s3://bucket/folder, gs://bucket/folder or file:///folder")
    return Address(shown, parts.scheme, (parts.netloc + unquote(parts.path)).rstrip("/"))


PROBE = ".lethe-writes-here"  # stays: what may write need not be allowed to delete
MANIFEST = ".lethe-whole"  # in a folder, written last: its files and their bytes
CHUNK_BYTES = 16 << 20
THREADS = 8


@dataclass(frozen=True)
class ObjectInfo:
    """An object: its name below the address, bytes, and when it was written, in the store's seconds since 1970."""

    name: str
    bytes: int
    modified: float


@dataclass(frozen=True)
class ObjectStore:
    """Names are relative to the address, with slashes. Whatever the store does not do is an Unreachable, an OSError."""

    address: Address

    @cached_property
    def files(self) -> FileSystem:
        """Opened once per process."""
        return self.address.open()

    def check(self, key: str) -> None:
        """Raises BadInput, within seconds, unless a file can be written there."""
        try:
            self.put(PROBE, b"lethe")
        except OSError as error:
            raise UserError(f"{key} {self.address.url}: cannot write there: {error_text(error)}") from None

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError | StoreUnreachableError) or error.errno in DISK_FULL_ERRNOS:
                raise
            raise StoreUnreachableError(f"{self.address.url}: {first_line(error)}") from error

    # One object

    def put(self, name: str, content: bytes | Path) -> None:
        """Write or replace an object, in a thread: an interrupted stream would publish what it has so far."""
        run_parallel(lambda _: self._put(name, content), [name])

    def _put(self, name: str, content: bytes | Path) -> None:
        path = self._path(name)
        with self._asked(), content.open("rb") if isinstance(content, Path) else BytesIO(content) as stream:
            self._write(path, stream)
            given, stored = stream.tell(), self.files.get_file_info(path).size
            if stored != given:
                raise OSError(f"of the {given} bytes of {name} the store has made {stored}")

    def _write(self, path: str, content: BinaryIO) -> None:
        folder = self.address.scheme == "file"  # where nothing is whole by itself
        with atomic_file(Path(path)) if folder else self.files.open_output_stream(path) as stream:
            shutil.copyfileobj(content, stream, CHUNK_BYTES)

    def read(self, name: str) -> bytes | None:
        """An object's content, None where there is none."""
        try:
            with self._asked(), self.files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def fetch(self, name: str, target: Path) -> None:
        """An object as the file `target`, which is not whole while this runs."""
        with self._asked(), self.files.open_input_stream(self._path(name)) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK_BYTES)

    def info(self, name: str) -> ObjectInfo | None:
        """The object of exactly this name, if there is one."""
        with self._asked():
            found = self.files.get_file_info(self._path(name))
        return self._found(found) if found.is_file else None

    # Many

    def list_objects(self, name: str = "") -> list[ObjectInfo]:
        """Every object in a folder and its folders."""
        return [self._found(info) for info in self._infos(name, recursive=True) if info.is_file]

    def list_names(self, name: str) -> list[str]:
        """What is directly in a folder: names of files and folders."""
        return [info.base_name for info in self._infos(name, recursive=False)]

    def put_folder(self, folder: Path, name: str) -> None:
        """A folder with all that is in it; links are followed."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.put_files({str(path.relative_to(folder)): path for path in paths}, name)

    def put_files(self, files: dict[str, Path], name: str) -> None:
        """A folder made of these files, by their names in it."""
        run_parallel(lambda part: self.put(f"{name}/{part}", files[part]), files)
        self.put(f"{name}/{MANIFEST}", json.dumps({part: path.stat().st_size for part, path in files.items()}).encode())

    def fetch_folder(self, name: str, target: Path) -> bool:
        """Fill the folder `target`; False where the store has no such folder, or one that is not whole."""
        raw = self.read(f"{name}/{MANIFEST}")
        if raw is None:
            return False
        found = {each.name.removeprefix(f"{name}/"): each.bytes for each in self.list_objects(name)}
        if any(found.get(part) != size for part, size in json.loads(raw).items()):
            return False
        found.pop(MANIFEST)
        target.mkdir(parents=True, exist_ok=True)
        self.fetch_files({f"{name}/{part}": target / part for part in found})
        return True

    def fetch_files(self, wanted: dict[str, Path]) -> None:
        """These objects as files."""
        for folder in {path.parent for path in wanted.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        run_parallel(lambda name: self.fetch(name, wanted[name]), wanted)

    def remove(self, name: str) -> None:
        """An object, or a folder with all that is in it. What is not there stays so."""
        if self.info(name):
            self._delete(name)
        elif found := self.list_objects(name):
            parts = [each.name for each in found]
            if f"{name}/{MANIFEST}" in parts:
                self._delete(f"{name}/{MANIFEST}")  # first: what is half removed does not count
            self._delete(name, *parts)

    def _delete(self, name: str, *parts: str) -> None:
        """A file, or a folder of these `parts`. pyarrow then makes a marker for the folder above, which a server may
        refuse: what counts is that they are gone."""
        try:
            if parts:
                self.files.delete_dir(self._path(name))
            else:
                self.files.delete_file(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            if self.list_objects(name) if parts else self.info(name):
                raise StoreUnreachableError(f"{self.address.url}: {first_line(error)}") from error

    def _infos(self, name: str, recursive: bool) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        with self._asked():
            return self.files.get_file_info(FileSelector(self._path(name), recursive=recursive, allow_not_found=True))

    def _path(self, name: str) -> str:
        return f"{self.address.folder}/{name}" if name else self.address.folder

    def _found(self, info: FileInfo) -> ObjectInfo:
        return ObjectInfo(info.path.removeprefix(f"{self.address.folder}/"), info.size, info.mtime_ns / 1e9)


def first_line(error: BaseException) -> str:
    """What a file system's error says: on one line, without the request's id at its end."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition(" (Request ID")[0][:300]


def error_text(error: OSError) -> str:
    """Without the address, which whoever says it names itself."""
    return first_line(error.__cause__ if isinstance(error.__cause__, OSError) else error)


def run_parallel(call: Callable[[str], None], names: Iterable[str]) -> None:
    """Some calls side by side: each waits for the network."""
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(call, names))
