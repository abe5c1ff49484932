"""Where lethe keeps things, and how a file or folder appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lethe.errors import BadInput


def home() -> Path:
    """The storage root: $LETHE_HOME, else ~/.lethe. Absolute; not created here."""
    return Path(os.environ.get("LETHE_HOME") or Path.home() / ".lethe").expanduser().resolve()


def writable(folder: Path) -> Path:
    """The folder, made if need be, as a whole path; BadInput where nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise BadInput(f"cannot write to {folder}: no permission")
    return folder.resolve()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `target` on success; a target that appeared meanwhile is kept."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise BadInput(f"cannot write to {target.parent}: {error.strerror}") from None
    try:
        temporary.chmod(0o755)
        yield temporary
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then rename it over `path`."""
    raw = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise BadInput(f"cannot write to {path.parent}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
