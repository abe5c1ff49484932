"""A node's copies of what a storage root of objects holds. Where the root is a folder that all nodes see, nothing here
does more than a folder can.
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
    """Whether there is such a file or folder, on this node after the call. One that is here already is not looked for:
    this is for what never changes under its name. One process fetches while others of this node wait for it."""
    if path.exists() or (at := object_of(path)) is None:
        return path.exists()
    objects, name = at
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks: it is done twice
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return True
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            if _fetched(objects, name, temporary / path.name):
                remove_local(path)  # a link to what is gone
                (temporary / path.name).rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return path.exists()


def _fetched(objects: ObjectStore, name: str, target: Path) -> bool:
    """Whether the store has it; then it is a new file or folder `target`."""
    if objects.info(name):
        objects.fetch(name, target)
        return True
    return objects.fetch_folder(name, target)


def local_path(path: Path) -> Path:
    """The path, once its copy is on this node if there is anything to copy."""
    ensure_local(path)
    return path


@contextmanager
def temporary_copy(path: Path) -> Iterator[Path | None]:
    """What is at `path`, while the block runs: as it is where it is on this node, else a copy that goes again, for what
    another node wrote and this one needs once. None where there is no such thing."""
    if path.exists() or (at := object_of(path)) is None:
        yield path if path.exists() else None
        return
    objects, name = at
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".borrowed-", dir=home()) as temporary:
        copy = Path(temporary) / path.name
        yield copy if _fetched(objects, name, copy) else None


def read_current(path: Path) -> str:
    """The text of a file as whoever wrote it left it, whatever an older copy says. FileNotFoundError if there is none."""
    if (at := object_of(path)) is None:
        return path.read_text()
    objects, name = at
    raw = objects.read(name)
    if raw is None:
        raise FileNotFoundError(f"there is no {objects.address.url}/{name}")
    return raw.decode()


def resolve_local(name: str) -> Path:
    """A folder by its name on this machine, or by its address below the storage root's."""
    objects, path = store(), Path(name).expanduser()
    if objects is None:
        return path
    if name.startswith(f"{objects.address.url}/"):
        path = home() / name.removeprefix(f"{objects.address.url}/").strip("/")
    for part in (path, path / "model", path / "result.json") if path.is_relative_to(home()) else ():
        ensure_local(part)
    return path


def evict_local(path: Path) -> None:
    """Remove this node's copy: other nodes, or a later call here, have it from the store. A folder's only one stays."""
    if object_of(path):
        remove_local(path)


def delete(path: Path) -> None:
    """Remove a file or folder, everywhere. What is not there stays so."""
    if at := object_of(path):
        objects, name = at
        objects.remove(name)
    remove_local(path)


def missing_parts(folders: Iterable[Path], parts: Collection[str]) -> set[Path]:
    """Of these parts of these folders, those that are nowhere: by one question for all folders in the same place. Where
    the root is a folder, none: asking is as cheap as removing."""
    wanted = {folder / part for folder in folders for part in parts}
    found: set[Path] = set()
    for place in {path.parent.parent for path in wanted}:
        if (at := object_of(place)) is None:
            return set()
        objects, name = at
        below = (each.name.removeprefix(f"{name}/").split("/")[:2] for each in objects.list_objects(name))
        found |= {place.joinpath(*each) for each in below}
    return wanted - found


def refresh_local(folder: Path, leave_out: Collection[str] = ()) -> None:
    """Make this node's copy of a folder equal to the store's, but for hidden files and what has one of these names."""
    if not (at := object_of(folder)):
        return
    objects, name = at
    for child in folder.iterdir():
        if child.name[0] != ".":
            remove_local(child)
    parts = [each.name.removeprefix(f"{name}/") for each in objects.list_objects(name)]
    wanted = [part for part in parts if not set(part.split("/")) & set(leave_out)]
    objects.fetch_files({f"{name}/{part}": folder / part for part in wanted})


def share_with_nodes(folder: Path, kind: str, digest: str, patterns: tuple[str, ...] = ("*",)) -> Path:
    """A folder as one that every node finds: itself, or with an address a link in `kind` to it, under which those of its
    files that match are shared. `digest` is its content's, so that no node can have another under that name."""
    objects = store()
    if objects is None:
        return folder
    name = f"{kind}/{digest}"
    link = home() / name
    if not objects.info(f"{name}/{MANIFEST}"):
        files = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
        objects.put_files({path.name: path for path in files}, name)
    if folder != link and not (link.is_symlink() and link.readlink() == folder):
        link.parent.mkdir(parents=True, exist_ok=True)
        remove_local(link)
        link.symlink_to(folder)
    return link


def remove_local(path: Path) -> None:
    """Remove a file, a folder, or a link and not what it leads to, from this node."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
