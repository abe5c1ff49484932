"""A study's name and folder, which `--resume` finds again, and the lock that keeps other sessions out."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from lethe.config.base import short_digest
from lethe.config.run import FOLDER as CHECKPOINT
from lethe.config.run import Digests
from lethe.config.study import Study
from lethe.errors import StudyBrokenError, UserError
from lethe.storage.lease import EXPIRES_S, StudyLease
from lethe.storage.paths import home, store
from lethe.storage.replica import refresh_local

LOCK = ".lock"  # in a study's folder, held by its session
CLAIMED = "claimed"  # a study's first object: there is such a study
LEASE = "lease"  # beside it in the store, where there is one: a folder's locks are its machine's
LARGE = frozenset({"model", CHECKPOINT, "rows.parquet", "report"})  # what a session does not read


@contextmanager
def claim(study: Study, digests: Digests, resume: bool) -> Iterator[tuple[str, Path]]:
    """Yield the study's id and folder, locked while the block runs. A new study never touches an earlier one; `resume`
    takes the latest equal one that has begun.

    The id is the study's name and a digest of everything that decides what its trials are, the contents of data and
    models included; `-2`, `-3` follow when the same study is run again.
    """
    root, base = home() / "studies", _base(study, digests)
    name = _latest(root, base) if resume else _new(root, base)
    with hold(root / name) as ours:
        if not ours:
            raise UserError(f"study {name} is running in another process: wait for it, or stop it first{_lease_note()}")
        refresh_local(root / name, LARGE | {LEASE})
        if objects := store():
            objects.put(f"studies/{name}/{CLAIMED}", b"")
        yield name, root / name


def held(folder: Path) -> bool:
    """Return whether a session holds the study in `folder`."""
    if objects := store():
        return StudyLease(objects, _lease(folder), _lost).is_held()
    if not (folder / LOCK).exists():
        return False
    with _locked(folder) as ours:
        return not ours


def _lease(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}/{LEASE}"


def _lease_note() -> str:
    """Return how exact that message is: of a study elsewhere only its lease is known."""
    return f" (one that was killed counts as running for {EXPIRES_S:g} s)" if store() else ""


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Try to lock the study, or the training, in `folder` while the block runs; yields False where another session
    holds it.

    This process ends if another takes it over, as it may with a lease that could not be renewed for long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as ours:
        objects = store()
        if not ours or objects is None:
            yield ours
            return
        with StudyLease(objects, _lease(folder), _lost).hold() as leased:
            yield leased


def _lost() -> None:
    """End this process at once: the study is another session's, and nothing may be written to it any more."""
    error = StudyBrokenError("another process has taken this study over while the store was out of reach")
    os._exit(error.print_and_exit_code())


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Try to lock the folder among the processes that see it; yields whether that worked."""
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


def is_known(study: Study, digests: Digests) -> bool:
    """Return whether there is a study that `claim` could resume."""
    return _known(home() / "studies" / _base(study, digests))


def check_resumable(study: Study, digests: Digests, given: str = "") -> None:
    """Check that there is a study to resume, before Ray starts; raises UserError otherwise. `given`: the id of a stored
    study that it should be, or anything else."""
    root, base = home() / "studies", _base(study, digests)
    is_name = given == Path(given).name != ""  # a study's file may be given by its path
    if is_name and given != base and not given.startswith(f"{base}-") and _known(root / given):
        raise UserError(
            f"{given} cannot go on: its settings, data and models make {base} now, so one of them was changed, or an"
            f" earlier version of lethe began it: `lethe show {given}` reads it, and `--set search.warm_start={given}`"
            " without --resume begins a study with its trials"
        )
    _latest(root, base)


def _base(study: Study, digests: Digests) -> str:
    return f"{study.name}-{short_digest(study.identity() + digests.canonical())[:8]}"


def _latest(root: Path, base: str) -> str:
    existing = []
    for name in _names(base):
        if not _known(root / name):
            break
        existing.append(name)
    if not existing:
        raise UserError(f"nothing to resume: no study {base} in {root} (another key, seed or data gives another name)")
    begun = [name for name in existing if _begun(root / name)]
    return (begun or existing)[-1]


def _new(root: Path, base: str) -> str:
    for name in _names(base):
        if _known(root / name):
            continue
        try:
            (root / name).mkdir(parents=True, exist_ok=store() is not None)
        except FileExistsError:
            continue
        return name
    raise AssertionError("names never end")


def _known(folder: Path) -> bool:
    """Return whether there is such a study. The store decides where there is one: a node's copy may be of one that is
    gone."""
    objects = store()
    return folder.exists() if objects is None else bool(objects.list_names(f"studies/{folder.name}"))


def _begun(folder: Path) -> bool:
    objects = store()
    file = folder / "baselines.json"
    return file.exists() if objects is None else objects.info(f"studies/{folder.name}/{file.name}") is not None


def _names(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base}-{n}" for n in count(2))
