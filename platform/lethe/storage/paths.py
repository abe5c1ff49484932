"""Where lethe keeps things, and how a file or folder appears whole or not at all.

LETHE_HOME is a folder that every node sees, or an address of objects. With an address, what lies under `home()` is this
node's copy, and whatever is written here goes there, too; `copies` has the other ways between the two.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lethe.errors import DISK_FULL_ERRNOS, UserError

if TYPE_CHECKING:
    from lethe.storage.object_store import ObjectStore

ROOT_VARIABLE = "LETHE_HOME"


def root() -> str:
    """The storage root: $LETHE_HOME, else ~/.lethe; a whole path, or an address."""
    given = os.environ.get(ROOT_VARIABLE) or str(Path.home() / ".lethe")
    return given if "://" in given else str(Path(given).expanduser().resolve())


def store() -> ObjectStore | None:
    """The objects at the storage root; None where it is a folder. BadInput for an address that is none."""
    return store_at(root())


@lru_cache
def store_at(where: str) -> ObjectStore | None:
    """The objects at an address; None for a folder."""
    if "://" not in where:
        return None
    from lethe.storage.object_store import ObjectStore, parse_address

    return ObjectStore(parse_address(where, ROOT_VARIABLE))


def home() -> Path:
    """The storage root as a folder, absolute, not created here: for an address its copy on this node, which is in
    $LETHE_SCRATCH or else in ~/.cache/lethe."""
    if (objects := store()) is None:
        return Path(root())
    from lethe.config.base import short_digest

    scratch = os.environ.get("LETHE_SCRATCH") or Path.home() / ".cache" / "lethe"
    return Path(scratch).expanduser().resolve() / short_digest(objects.address.url)


def object_of(path: Path) -> tuple[ObjectStore, str] | None:
    """The store and a path's name in it; None for what is in no store, and for hidden files, which are the node's."""
    objects = store()
    if objects is None or not path.is_relative_to(home()):
        return None
    below = path.relative_to(home())
    return None if any(part[0] == "." for part in below.parts) else (objects, below.as_posix())


def require_database(key: str, mend: str) -> None:
    """Raises BadInput where the storage root holds objects only: `key` then has to name a database."""
    if store():
        raise UserError(f"{key}: LETHE_HOME={root()} holds objects and no databases: {mend}")


def check_root() -> None:
    """Raises BadInput where nothing can be written to the storage root."""
    ensure_writable(home())
    if objects := store():
        objects.check(ROOT_VARIABLE)


def ensure_writable(folder: Path) -> Path:
    """The folder, made if need be, as a whole path; BadInput where nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: no permission")
    return folder.resolve()


def _refused(folder: Path, error: OSError) -> Exception:
    """A folder that cannot be written is the user's mistake, a disk that is full is nobody's."""
    return error if error.errno in DISK_FULL_ERRNOS else UserError(f"cannot write to {folder}: {error.strerror}")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `target` on success; a target that appeared meanwhile is kept."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise _refused(target.parent, error) from None
    try:
        temporary.chmod(0o755)
        yield temporary
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


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all."""
    raw = content.encode() if isinstance(content, str) else content
    with ExitStack() as stack:
        try:
            file = stack.enter_context(atomic_file(path))
        except OSError as error:
            raise _refused(path.parent, error) from None
        file.write(raw)
        if at := object_of(path):
            objects, name = at
            objects.put(name, raw)


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file under a temporary name, which becomes `path` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
