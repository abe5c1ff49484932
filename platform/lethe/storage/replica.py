"""This node's local copies of what an object store at the storage root holds.

Where the storage root is a folder that all nodes see, every function does what its name says with that folder alone,
and nothing is copied.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lethe.storage.object_store import MANIFEST, ObjectStore
from lethe.storage.paths import home, object_of, store


def ensure_local(path: Path) -> bool:
    """Fetch the file or folder `path` from the store unless it is on this node; return whether it exists afterwards.

    For content that never changes under its name: a local copy is taken as it is. One process of a node fetches while
    the others wait for it.
    """
    if path.exists() or (at := object_of(path)) is None:
        return path.exists()
    objects, name = at
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        with suppress(OSError):  # on a file system without locks two processes may both fetch
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return True
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            if _fetch(objects, name, temporary / path.name):
                remove_local(path)  # a dangling link
                (temporary / path.name).rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return path.exists()


def _fetch(objects: ObjectStore, name: str, target: Path) -> bool:
    """Fetch the object or complete folder `name` as `target`; return whether the store has it."""
    if objects.info(name):
        objects.fetch(name, target)
        return True
    return objects.fetch_folder(name, target)


def local_path(path: Path) -> Path:
    """Return `path` after fetching it from the store unless it is on this node (see `ensure_local`)."""
    ensure_local(path)
    return path


@contextmanager
def temporary_copy(path: Path) -> Iterator[Path | None]:
    """Yield a path with the content of `path`, None where neither this node nor the store has it.

    A file or folder of this node is yielded as it is. Otherwise the yielded copy is removed after the block: for
    content that another node wrote and this one needs once.
    """
    if path.exists() or (at := object_of(path)) is None:
        yield path if path.exists() else None
        return
    objects, name = at
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".borrowed-", dir=home()) as temporary:
        copy = Path(temporary) / path.name
        yield copy if _fetch(objects, name, copy) else None


def read_current(path: Path) -> str:
    """Return the text of the file `path` as the store has it now, whatever a local copy says. Raises FileNotFoundError
    where there is none."""
    if (at := object_of(path)) is None:
        return path.read_text()
    objects, name = at
    raw = objects.read(name)
    if raw is None:
        raise FileNotFoundError(f"there is no {objects.address.url}/{name}")
    return raw.decode()


def resolve_local(name: str) -> Path:
    """Return the local folder for `name`, a path of this machine or an address below the storage root's, after fetching
    what the store has of it: the folder itself, its `model` and its `result.json`."""
    objects, path = store(), Path(name).expanduser()
    if objects is None:
        return path
    if name.startswith(f"{objects.address.url}/"):
        path = home() / name.removeprefix(f"{objects.address.url}/").strip("/")
    for part in (path, path / "model", path / "result.json") if path.is_relative_to(home()) else ():
        ensure_local(part)
    return path


def evict_local(path: Path) -> None:
    """Remove this node's copy of `path`, which the store still has. Without a store nothing is removed: the folder's
    copy is the only one."""
    if object_of(path):
        remove_local(path)


def delete(path: Path) -> None:
    """Delete the file or folder `path` on this node and in the store. Does nothing where it does not exist."""
    if at := object_of(path):
        objects, name = at
        objects.remove(name)
    remove_local(path)


def missing_parts(folders: Iterable[Path], parts: Collection[str]) -> set[Path]:
    """Return the paths `folder / part` that the store lacks, with one request per parent of `folders`. The empty set
    where the storage root is a folder: there asking costs as much as removing."""
    candidates = {folder / part for folder in folders for part in parts}
    present: set[Path] = set()
    for parent in {path.parent.parent for path in candidates}:
        if (at := object_of(parent)) is None:
            return set()
        objects, name = at
        names = (info.name.removeprefix(f"{name}/").split("/")[:2] for info in objects.list_objects(name))
        present |= {parent.joinpath(*folder_and_part) for folder_and_part in names}
    return candidates - present


def refresh_local(folder: Path, leave_out: Collection[str] = ()) -> None:
    """Make this node's copy of `folder` equal to the store's. Hidden files stay, and files and folders with a name in
    `leave_out` are not fetched. Does nothing without a store."""
    if not (at := object_of(folder)):
        return
    objects, name = at
    for child in folder.iterdir():
        if child.name[0] != ".":
            remove_local(child)
    parts = [info.name.removeprefix(f"{name}/") for info in objects.list_objects(name)]
    chosen = [part for part in parts if not set(part.split("/")) & set(leave_out)]
    objects.fetch_files({f"{name}/{part}": folder / part for part in chosen})


def share_with_nodes(folder: Path, kind: str, digest: str, patterns: tuple[str, ...] = ("*",)) -> Path:
    """Return a path under which every node finds the content of `folder`.

    Without a store that is `folder` itself. With one, its files that match `patterns` are put there as `kind/digest`,
    and the path is a link to `folder` of that name in `home()`. `digest` is that of the content: two nodes never have
    different contents under one name.
    """
    objects = store()
    if objects is None:
        return folder
    name = f"{kind}/{digest}"
    link = home() / name
    if not objects.info(f"{name}/{MANIFEST}"):
        files = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
        objects.put_files({path.relative_to(folder).as_posix(): path for path in files}, name)
    if folder != link and not (link.is_symlink() and link.readlink() == folder):
        link.parent.mkdir(parents=True, exist_ok=True)
        remove_local(link)
        link.symlink_to(folder)
    return link


def remove_local(path: Path) -> None:
    """Remove the file, folder or symbolic link `path` from this node; a link's target stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
