"""A node's copies of what a storage root of objects holds. Where the root is a folder that all nodes see, nothing here
does more than a folder can.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from lethe.objects.store import WHOLE
from lethe.storage import home, shared_as, store


def there(path: Path) -> bool:
    """Whether there is such a file or folder, on this node after the call. One that is here already is not looked for:
    this is for what never changes."""
    if path.exists() or (at := shared_as(path)) is None:
        return path.exists()
    objects, name = at
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        temporary.chmod(0o755)
        if objects.look(name):
            objects.fetch(name, temporary / path.name)
            (temporary / path.name).replace(path)
        elif objects.fetch_folder(name, temporary):
            with suppress(OSError):  # another process was first
                temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path.exists()


def here(path: Path) -> Path:
    """The path, once its copy is on this node if there is anything to copy."""
    there(path)
    return path


def local(name: str) -> Path:
    """A folder by its name on this machine, or by its address below the storage root's."""
    objects = store()
    if objects is None or not name.startswith(f"{objects.address.url}/"):
        return Path(name).expanduser()
    path = home() / name.removeprefix(f"{objects.address.url}/").strip("/")
    for part in (path, path / "model", path / "result.json"):
        there(part)
    return path


def let_go(path: Path) -> None:
    """Remove this node's copy: other nodes, or a later call here, have it from the store. A folder's only one stays."""
    if shared_as(path):
        _remove(path)


def forget(path: Path) -> None:
    """Remove a file or folder, everywhere. What is not there stays so."""
    if at := shared_as(path):
        objects, name = at
        objects.remove(name)
    _remove(path)


def refresh(folder: Path, leave_out: frozenset[str] = frozenset()) -> None:
    """Make this node's copy of a folder equal to the store's, but for hidden files and what has one of these names."""
    if not (at := shared_as(folder)):
        return
    objects, name = at
    for child in folder.iterdir():
        if child.name[0] != ".":
            _remove(child)
    parts = [each.name.removeprefix(f"{name}/") for each in objects.below(name)]
    wanted = [part for part in parts if leave_out.isdisjoint(part.split("/"))]
    objects.fetch_files({f"{name}/{part}": folder / part for part in wanted})


def everywhere(folder: Path, kind: str, digest: str, patterns: tuple[str, ...] = ("*",)) -> Path:
    """A folder of the user's as one that every node finds: itself, or with an address a link in `kind` to it, under
    which those of its files that match are shared."""
    objects = store()
    if objects is None or folder.is_relative_to(home()):
        return folder
    name = f"{kind}/{digest}"
    link = home() / name
    if not objects.look(f"{name}/{WHOLE}"):
        files = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
        objects.put_files({path.name: path for path in files}, name)
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # to a folder that is gone
        link.symlink_to(folder)
    return link


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
