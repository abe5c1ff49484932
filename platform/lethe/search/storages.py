"""Optuna's storage of a study: memory, SQLite, a database server, or a journal file."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from lethe.config.addresses import check_database, without_password
from lethe.config.search import Search
from lethe.errors import DISK_FULL_ERRNOS, StudyBrokenError, UserError, first_line
from lethe.search.database import Database
from lethe.storage.files import make_once
from lethe.storage.paths import home
from lethe.storage.sqlite_schema import OPTUNA

_SQLITE, _JOURNAL = "sqlite:///", "journal:"
OUTAGE_S = 60.0  # in which a server starts again, or another program ends its transaction
RETRY_S = 0.2
BUSY_S = 1.0  # SQLite's own wait for a lock, in which no signal is handled
BUSY = ("database is locked", "already exists")  # at opening; "exists": another study makes the same tables
DISK_FULL = ("disk is full", "No space left", "quota exceeded")  # what SQLite, PostgreSQL and MySQL say

P = ParamSpec("P")
T = TypeVar("T")


def storage_url(search: Search) -> str:
    """Return the study's storage address: `search.storage`, else a SQLite file in the storage root."""
    return search.storage or f"{_SQLITE}{home() / 'optuna.db'}"


def open_storage(url: str | None) -> BaseStorage:
    """Return Optuna's storage at an SQLAlchemy URL or at `journal:PATH`, a file that several machines may share over
    NFS; with None in memory, for previews and tests. It waits out an `Outage`.

    Raises UserError, which shows no password, where it cannot be opened.
    """
    if url is None:
        return InMemoryStorage()
    outage = Outage(url)
    try:
        opened = _journal(url.removeprefix(_JOURNAL)) if url.startswith(_JOURNAL) else _database(url, outage)
    except ImportError as error:
        reason = f"{error.__cause__ or error}: install the database's driver (postgresql: psycopg[binary])"
    except _storage_errors() as error:
        reason = _reason(error, url)
    except RuntimeError as error:  # tables of another Optuna, or of MLflow
        if url.startswith(_SQLITE):
            OPTUNA.check(_sqlite_path(url), url)
        reason = first_line(error)
    except ValueError:  # its message may quote a part of the address
        reason = "it is no address of a database"
    else:
        return outage.waited_out_by(get_storage(opened))
    raise UserError(f"the study's storage {without_password(url)} cannot be opened: {reason}")


def _journal(path: str) -> JournalStorage:
    file = Path(path).expanduser().absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    # A lock by O_EXCL holds on network file systems; one that a killed process left is taken over after 30 s.
    backend = JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file), grace_period=30))
    return JournalStorage(backend)


def _database(url: str, outage: Outage) -> Database:
    check_database(url)
    options: dict[str, Any] = {}
    if url.startswith(_SQLITE):
        options = {"pool_events": [(_use_write_ahead_log, "connect")], "connect_args": {"timeout": BUSY_S}}
        make_once(_sqlite_path(url), lambda new: RDBStorage(f"{_SQLITE}{new}").engine.dispose())
    deadline = time.monotonic() + OUTAGE_S
    while True:
        try:
            return Database(RDBStorage(url, engine_kwargs=dict(options)))
        except _storage_errors() as error:
            if not any(words in str(error) for words in BUSY):
                raise
            outage.wait_or_give_up(error, deadline)


def _sqlite_path(url: str) -> Path:
    return Path(url.removeprefix(_SQLITE).partition("?")[0]).absolute()


def _use_write_ahead_log(connection: Any, _record: object) -> None:
    # A log without a sync per commit (sqlite.org/wal.html), since Optuna commits some ten times per trial: a killed
    # process loses nothing, a power cut at most the last trials' records, and never the file.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


class Outage:
    """Repeats the calls of a storage that fails, each for `OUTAGE_S` seconds until it succeeds. Then, at once where the
    disk is full or an earlier call was given up, the failure is a StudyBrokenError."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._file = _sqlite_path(url) if url.startswith(_SQLITE) else None
        self._given_up = False

    def waited_out_by(self, storage: BaseStorage) -> BaseStorage:
        """Return `storage`, whose methods are repeated while it fails."""
        for name, method in (vars(BaseStorage) | vars(type(storage))).items():
            if callable(method) and not name.startswith("_"):
                setattr(storage, name, self._repeated(getattr(storage, name)))
        return storage

    def _repeated(self, call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
            failures = 0
            deadline = time.monotonic() + OUTAGE_S
            while True:
                try:
                    if self._file is not None and not self._file.exists():  # SQLite would write on, to no file
                        raise FileNotFoundError("its file is gone")
                    return call(*args, **kwargs)
                except _storage_errors() as error:
                    failures += 1
                    self.wait_or_give_up(error, deadline)
                except UpdateFinishedTrialError:
                    if not failures:
                        raise
                    return True  # type: ignore[return-value]  # told already: only the answer was lost

        return repeated

    def wait_or_give_up(self, error: Exception, deadline: float) -> None:
        """Wait a moment before the next attempt. Raises StudyBrokenError where there should be none."""
        if self._given_up or time.monotonic() > deadline or _disk_is_full(error):
            self._given_up = True
            reason = f"the study's storage {without_password(self._url)} cannot be used: {_reason(error, self._url)}"
            raise StudyBrokenError(reason) from error
        time.sleep(RETRY_S)


def _reason(error: BaseException, url: str) -> str:
    """Return the first line of the innermost cause, without the password: a driver's message may quote the address."""
    line = first_line(_innermost(error))
    return without_password(line.replace(url, without_password(url)))


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _disk_is_full(error: BaseException) -> bool:
    cause = _innermost(error)
    return getattr(cause, "errno", None) in DISK_FULL_ERRNOS or any(words in str(cause) for words in DISK_FULL)


def _storage_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError  # slow to import, and loaded already where it can be raised

    return (OSError, SQLAlchemyError, StorageInternalError)
