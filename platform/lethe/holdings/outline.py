"""The storage root as a folder to look at: itself, or for objects an outline of them that takes no space."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lethe.copies import drop
from lethe.errors import BadInput
from lethe.objects.store import Found, Store, first_line
from lethe.storage import home, store

READ = ("study.json", "scaling.json")  # what is not only counted


@contextmanager
def outline() -> Iterator[Path]:
    """A folder with every file's name, size and age; of objects only those in READ have their content."""
    if (objects := store()) is None:
        yield home()
        return
    with tempfile.TemporaryDirectory(prefix="lethe-outline-") as temporary:
        try:
            _draw(objects, objects.below(), Path(temporary))
        except OSError as error:
            raise BadInput(f"cannot read {objects.address.url}: {first_line(error)}") from None
        yield Path(temporary)


def _draw(objects: Store, found: list[Found], root: Path) -> None:
    for each in found:
        path = root / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name in READ:
            objects.fetch(each.name, path)
        else:
            path.touch()
            os.truncate(path, each.bytes)
        os.utime(path, (each.changed, each.changed))


def remove(path: Path, root: Path) -> None:
    """Remove a file or folder of the outline, and what it stands for."""
    if objects := store():
        name = path.relative_to(root)
        objects.remove(name.as_posix())
        drop(home() / name)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
