"""Bytes and ages of folders that others may be writing in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DAY_S = 86_400


@dataclass(frozen=True)
class Size:
    """`changed`: when the newest of it was written, in seconds since 1970; 0 where there is nothing."""

    bytes: int = 0
    changed: float = 0.0

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, max(self.changed, other.changed))

    @property
    def days(self) -> float:
        """Since it changed."""
        return (time.time() - self.changed) / DAY_S


def files(path: Path) -> Iterator[tuple[Path, Size]]:
    """Every file in `path`, which may be one itself. What vanishes meanwhile or is closed to us is left out; links are
    not followed."""
    try:
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                yield from files(child)
        else:
            status = path.lstat()
            yield path, Size(status.st_size, status.st_mtime)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return


def size(path: Path) -> Size:
    """All of it together; an empty folder is as old as it looks."""
    found = sum((each for _, each in files(path)), Size())
    if found.changed or not path.exists():
        return found
    return Size(0, path.stat().st_mtime)


def shown(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
