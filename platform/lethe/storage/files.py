"""Replacing one local file atomically, making one that several processes may want to make, and naming one whose content
was never fetched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lethe.errors import UserError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file open for writing under a temporary name, renamed to `path` with permissions `mode` when the block
    succeeds and removed when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C, too: a half-written file never stays
        Path(temporary).unlink(missing_ok=True)
        raise


def make_once(path: Path, make: Callable[[Path], object]) -> None:
    """Create the file `path` whole or not at all: `make(new)` writes the file `new`, and has it closed when it returns.
    Does nothing where there is a file; one that another process makes meanwhile is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        new = Path(folder, path.name)
        make(new)
        try:
            os.link(new, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            return
        except OSError:  # a file system without links
            new.rename(path)


def refuse_pointer(path: Path) -> None:
    """Raise UserError for the few lines that Git writes in the place of a file that Git LFS has not fetched."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(LFS_POINTER))
    except OSError:  # whoever reads the file says what is wrong
        return
    if begins == LFS_POINTER:
        raise UserError(f"{path} is a pointer of Git LFS in the place of the file: fetch it with `git lfs pull`")
