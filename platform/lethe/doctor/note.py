"""A note left in the storage root, to be found there by another node."""

from __future__ import annotations

from pathlib import Path

from lethe.storage import store_at


def write(root: str, name: str, word: str) -> None:
    """OSError where that fails."""
    if objects := store_at(root):
        objects.put(name, word.encode())
    else:
        (Path(root) / name).write_text(word)


def read(root: str, name: str) -> str | None:
    """None where nothing arrived."""
    if objects := store_at(root):
        raw = objects.read(name)
        return None if raw is None else raw.decode()
    path = Path(root) / name
    return path.read_text() if path.exists() else None


def remove(root: str, name: str) -> None:
    """What is not there stays so."""
    if objects := store_at(root):
        objects.remove(name)
    else:
        (Path(root) / name).unlink(missing_ok=True)
