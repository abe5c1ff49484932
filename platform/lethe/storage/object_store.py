"""Files and folders as objects of a store, through pyarrow: s3://bucket/folder, gs://bucket/folder, file:///folder.

Credentials are the environment's. An object appears complete or not at all. A folder is a set of objects with a
manifest, written last: without a manifest that all of its objects agree with, the folder does not count.
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
from lethe.errors import DISK_FULL_ERRNOS, StoreUnreachableError, UserError, first_line
from lethe.storage.files import atomic_file

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SCHEMES = ("s3", "gs", "file")
CONNECT_S, REQUEST_S = 5.0, 60.0
PROBE = ".lethe-writes-here"  # stays: credentials that may write need not be allowed to delete
MANIFEST = ".lethe-whole"  # JSON: the folder's files and their sizes in bytes
CHUNK_BYTES = 16 << 20
THREADS = 8


@dataclass(frozen=True)
class Address:
    """`url` has no password and no slash at its end; `folder` is the path that the file system of `scheme` takes."""

    url: str
    scheme: str
    folder: str

    def open(self) -> FileSystem:
        """Return pyarrow's file system for the address, which has not connected yet."""
        from pyarrow import fs

        if self.scheme == "file":
            return fs.LocalFileSystem()
        if self.scheme == "gs":
            from datetime import timedelta

            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_S))
        # pyarrow takes keys and region from the environment as other clients do, but not the endpoint.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(
            endpoint_override=endpoint,
            connect_timeout=CONNECT_S,
            request_timeout=REQUEST_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        )


def parse_address(url: str, key: str) -> Address:
    """Parse the address `url`, given by the setting `key`. Raises UserError for an unknown scheme, a missing bucket or
    folder, and credentials or options inside of the address."""
    printable = without_password(url).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{key} {printable}: {error}") from None
    if parts.scheme not in SCHEMES:
        raise UserError(f"{key} {printable}: an address begins with s3://, gs:// or file://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"{key} {printable}: keys and options belong in the environment (AWS_*, GOOGLE_*), not in the address"
        )
    if bool(parts.netloc) == (parts.scheme == "file"):
        raise UserError(f"{key} {printable}: say s3://bucket/folder, gs://bucket/folder or file:///folder")
    return Address(printable, parts.scheme, (parts.netloc + unquote(parts.path)).rstrip("/"))


@dataclass(frozen=True)
class ObjectInfo:
    """An object's name below the store's address, its size in bytes, and when it was written, in seconds since 1970 by
    the store's clock."""

    name: str
    bytes: int
    modified: float


@dataclass(frozen=True)
class ObjectStore:
    """The objects below one address; names are relative to it, with slashes.

    Every method raises StoreUnreachableError, an OSError, where the store does not do what it was asked; a full disk
    and a missing file stay the OSErrors that they are.
    """

    address: Address

    @cached_property
    def files(self) -> FileSystem:
        """Pyarrow's file system, opened once per process."""
        return self.address.open()

    def check(self, key: str) -> None:
        """Raise UserError, within seconds and naming the setting `key`, unless a file can be written to the store."""
        try:
            self.put(PROBE, b"lethe")
        except OSError as error:
            raise UserError(f"{key} {self.address.url}: cannot write there: {error_text(error)}") from None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError | StoreUnreachableError) or error.errno in DISK_FULL_ERRNOS:
                raise
            raise StoreUnreachableError(f"{self.address.url}: {store_message(error)}") from error

    # Single objects

    def put(self, name: str, content: bytes | Path) -> None:
        """Write the object `name`, or replace it, with `content` or the content of that file."""
        # In a thread: a KeyboardInterrupt here would close the stream, which publishes what it has so far.
        run_parallel(lambda _: self._put(name, content), [name])

    def _put(self, name: str, content: bytes | Path) -> None:
        path = self._path(name)
        with self._translate_errors(), content.open("rb") if isinstance(content, Path) else BytesIO(content) as stream:
            self._write(path, stream)
            sent, stored = stream.tell(), self.files.get_file_info(path).size
            if stored != sent:
                raise OSError(f"of the {sent} bytes of {name} the store has made {stored}")

    def _write(self, path: str, content: BinaryIO) -> None:
        local = self.address.scheme == "file"  # on a disk a file is not atomic by itself
        with atomic_file(Path(path)) if local else self.files.open_output_stream(path) as stream:
            shutil.copyfileobj(content, stream, CHUNK_BYTES)

    def read(self, name: str) -> bytes | None:
        """Return the content of the object `name`, None where it does not exist."""
        try:
            with self._translate_errors(), self.files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def fetch(self, name: str, target: Path) -> None:
        """Write the content of the object `name` to the file `target`, which is incomplete while this runs. Raises
        FileNotFoundError where the object does not exist."""
        opened = self.files.open_input_stream
        with self._translate_errors(), opened(self._path(name)) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK_BYTES)

    def info(self, name: str) -> ObjectInfo | None:
        """Return size and time of the object `name`, None where there is none of exactly this name."""
        with self._translate_errors():
            info = self.files.get_file_info(self._path(name))
        return self._object_info(info) if info.is_file else None

    # Folders

    def list_objects(self, name: str = "") -> list[ObjectInfo]:
        """Return every object below the folder `name`, at any depth; with no name, all objects of the store."""
        return [self._object_info(info) for info in self._infos(name, recursive=True) if info.is_file]

    def list_names(self, name: str) -> list[str]:
        """Return the names, without their folder, of the files and folders directly in the folder `name`."""
        return [info.base_name for info in self._infos(name, recursive=False)]

    def put_folder(self, folder: Path, name: str) -> None:
        """Write all files below the local `folder` and a manifest as the folder `name`; links are followed."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.put_files({str(path.relative_to(folder)): path for path in paths}, name)

    def put_files(self, files: dict[str, Path], name: str) -> None:
        """Write local files, keyed by their names in the folder, and a manifest as the folder `name`."""
        run_parallel(lambda part: self.put(f"{name}/{part}", files[part]), files)
        sizes = {part: path.stat().st_size for part, path in files.items()}
        self.put(f"{name}/{MANIFEST}", json.dumps(sizes).encode())

    def fetch_folder(self, name: str, target: Path) -> bool:
        """Fetch the folder `name` into the local folder `target`. Returns False, and fetches nothing, where the store
        has no such folder or not all that its manifest lists."""
        manifest = self.read(f"{name}/{MANIFEST}")
        if manifest is None:
            return False
        sizes = {info.name.removeprefix(f"{name}/"): info.bytes for info in self.list_objects(name)}
        if any(sizes.get(part) != size for part, size in json.loads(manifest).items()):
            return False
        sizes.pop(MANIFEST)
        target.mkdir(parents=True, exist_ok=True)
        self.fetch_files({f"{name}/{part}": target / part for part in sizes})
        return True

    def fetch_files(self, targets: dict[str, Path]) -> None:
        """Fetch objects, keyed by name, into the local files `targets`, whose folders are created."""
        for folder in {path.parent for path in targets.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        run_parallel(lambda name: self.fetch(name, targets[name]), targets)

    def remove(self, name: str) -> None:
        """Remove the object `name`, or every object of the folder `name`. Does nothing where neither exists."""
        if self.info(name):
            self._delete(name)
        elif infos := self.list_objects(name):
            parts = [info.name for info in infos]
            if f"{name}/{MANIFEST}" in parts:
                self._delete(f"{name}/{MANIFEST}")  # first: a folder that is half removed does not count
            self._delete(name, *parts)

    def _delete(self, name: str, *parts: str) -> None:
        """Delete the object `name`, or with `parts` the folder of these objects."""
        # After a deletion pyarrow writes a marker for the parent folder, which a server may refuse. So an error counts
        # only if something is left.
        try:
            if parts:
                self.files.delete_dir(self._path(name))
            else:
                self.files.delete_file(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            if self.list_objects(name) if parts else self.info(name):
                raise StoreUnreachableError(f"{self.address.url}: {store_message(error)}") from error

    def _infos(self, name: str, recursive: bool) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        with self._translate_errors():
            selector = FileSelector(self._path(name), recursive=recursive, allow_not_found=True)
            infos: list[FileInfo] = self.files.get_file_info(selector)
            return infos

    def _path(self, name: str) -> str:
        return f"{self.address.folder}/{name}" if name else self.address.folder

    def _object_info(self, info: FileInfo) -> ObjectInfo:
        return ObjectInfo(info.path.removeprefix(f"{self.address.folder}/"), info.size, info.mtime_ns / 1e9)


def store_message(error: BaseException) -> str:
    """Return the first line of an object store's error, at most 300 characters, without the request id at its end."""
    return first_line(error).partition(" (Request ID")[0][:300]


def error_text(error: OSError) -> str:
    """Return the first line of a store's error without the store's address, which the caller's message names itself."""
    return store_message(error.__cause__ if isinstance(error.__cause__, OSError) else error)


def run_parallel(call: Callable[[str], None], names: Iterable[str]) -> None:
    """Call `call` with each of `names` in `THREADS` threads, since each call waits for the network; raise the first
    error of any of them."""
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(call, names))
