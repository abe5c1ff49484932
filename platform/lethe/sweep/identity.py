"""A study's name and folder: what `--resume` finds again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from lethe.config.base import short_digest
from lethe.config.run import Digests
from lethe.config.study import Study
from lethe.errors import BadInput
from lethe.storage import home

LOCK = ".lock"  # in a study's folder, held by its session

@contextmanager
def claim(study: Study, digests: Digests, resume: bool) -> Iterator[tuple[str, Path]]:
    """The study's id and folder, locked while the block runs. A new study never touches an earlier one; `resume`
    takes the latest equal one that has begun.

    The id is the study's name and a digest of everything that decides what its trials are, the contents of data and
    models included; `-2`, `-3` follow when the same study is run again.
    """
    root, base = home() / "studies", _base(study, digests)
    name = _latest(root, base) if resume else _new(root, base)
    with hold(root / name) as ours:
        if not ours:
            raise BadInput(f"study {name} is running in another process: wait for it, or stop it first")
        yield name, root / name


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Whether nobody else holds the study in `folder`; if so, nobody else does while the block runs."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = True
    except BlockingIOError:
        ours = False
    try:
        yield ours
    finally:
        os.close(descriptor)


def check_resumable(study: Study, digests: Digests) -> None:
    """Raises BadInput where there is nothing to resume: before Ray starts."""
    _latest(home() / "studies", _base(study, digests))


def _base(study: Study, digests: Digests) -> str:
    return f"{study.name}-{short_digest(study.identity() + digests.canonical())[:8]}"


def _latest(root: Path, base: str) -> str:
    existing = []
    for name in _names(base):
        if not (root / name).exists():
            break
        existing.append(name)
    if not existing:
        raise BadInput(f"nothing to resume: no study {base} in {root} (another key, seed or data gives another name)")
    begun = [name for name in existing if (root / name / "baselines.json").exists()]
    return (begun or existing)[-1]


def _new(root: Path, base: str) -> str:
    for name in _names(base):
        try:
            (root / name).mkdir(parents=True)
        except FileExistsError:
            continue
        return name
    raise AssertionError("names never end")


def _names(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base}-{n}" for n in count(2))
