"""The storage root, and writing files and folders atomically: they appear complete or not at all.

`LETHE_HOME` is a folder that every node sees, or the address of an object store. With an address, `home()` is this
node's local copy, and the functions here that write below it also write to the store; `lethe.storage.replica` has the
other operations between the two.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

from lethe.config.base import short_digest
from lethe.errors import DISK_FULL_ERRNOS, UserError
from lethe.storage.files import atomic_file
from lethe.storage.object_store import ObjectStore, parse_address

ROOT_VARIABLE = "LETHE_HOME"


def root() -> str:
    """Return the storage root: $LETHE_HOME, else ~/.lethe; an absolute path, or an address with `://`."""
    given = os.environ.get(ROOT_VARIABLE) or str(Path.home() / ".lethe")
    return given if "://" in given else str(Path(given).expanduser().resolve())


def store() -> ObjectStore | None:
    """Return the object store at the storage root, None where the root is a folder. Raises UserError for an address
    that cannot be parsed."""
    return store_at(root())


@lru_cache
def store_at(where: str) -> ObjectStore | None:
    """Return the object store at the address `where`, None where it is a folder's path."""
    if "://" not in where:
        return None
    return ObjectStore(parse_address(where, ROOT_VARIABLE))


def home() -> Path:
    """Return the storage root as an absolute folder, which is not created here. For an address it is this node's local
    copy, below $LETHE_SCRATCH or else ~/.cache/lethe."""
    if (objects := store()) is None:
        return Path(root())
    scratch = os.environ.get("LETHE_SCRATCH") or Path.home() / ".cache" / "lethe"
    return Path(scratch).expanduser().resolve() / short_digest(objects.address.url)


def object_of(path: Path) -> tuple[ObjectStore, str] | None:
    """Return the object store and the name that `path` has in it. None where the storage root is a folder, for a path
    outside of `home()`, and for hidden files and folders, which never leave their node."""
    objects = store()
    if objects is None or not path.is_relative_to(home()):
        return None
    below = path.relative_to(home())
    return None if any(part[0] == "." for part in below.parts) else (objects, below.as_posix())


def require_database(key: str, remedy: str) -> None:
    """Raise UserError where the storage root is an object store, which holds no databases: the setting `key` then has
    to name one, as `remedy` says in words."""
    if store():
        raise UserError(f"{key}: LETHE_HOME={root()} holds objects and no databases: {remedy}")


def check_root() -> None:
    """Raise UserError unless the storage root, and with an address its local copy, can be written to."""
    ensure_writable(home())
    if objects := store():
        objects.check(ROOT_VARIABLE)


def ensure_writable(folder: Path) -> Path:
    """Create `folder` if need be and return it as an absolute path. Raises UserError where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: no permission")
    return folder.resolve()


def _write_error(folder: Path, error: OSError) -> Exception:
    """Return the error to raise for `folder`: a UserError, but `error` itself where the disk is full, which is no
    mistake of the user."""
    return error if error.errno in DISK_FULL_ERRNOS else UserError(f"cannot write to {folder}: {error.strerror}")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, which is renamed to `target`, and copied to the object store if there
    is one, when the block succeeds. A `target` that has appeared meanwhile is kept. Raises UserError where nothing can
    be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise _write_error(target.parent, error) from None
    try:
        yield temporary
        apply_umask(temporary)
        if at := object_of(target):
            objects, name = at
            objects.put_folder(temporary, name)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def apply_umask(folder: Path) -> None:
    """Give the folder and its files the mode that new ones have here. mkdtemp and safetensors make theirs for their
    owner alone, and nobody else could load a model from a shared disk."""
    probe = folder / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write `content` to the file `path` atomically, and to the object store if there is one. Raises UserError where
    nothing can be written."""
    raw = content.encode() if isinstance(content, str) else content
    with ExitStack() as stack:
        try:
            file = stack.enter_context(atomic_file(path))
        except OSError as error:
            raise _write_error(path.parent, error) from None
        file.write(raw)
        if at := object_of(path):
            objects, name = at
            objects.put(name, raw)
