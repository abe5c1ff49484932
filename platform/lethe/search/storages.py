"""Optuna's storage of a study: memory, SQLite, a database server, or a journal file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from lethe.config.addresses import check_database, without_password
from lethe.config.search import Search
from lethe.errors import UserError, first_line
from lethe.storage.paths import home

_SQLITE, _JOURNAL = "sqlite:///", "journal:"


def storage_url(search: Search) -> str:
    """Return the study's storage address: `search.storage`, else a SQLite file in the storage root."""
    return search.storage or f"{_SQLITE}{home() / 'optuna.db'}"


def open_storage(url: str | None) -> BaseStorage:
    """Return Optuna's storage at an SQLAlchemy URL or at `journal:PATH`, a file that several machines may share over
    NFS; with None in memory, for previews and tests. Raises UserError, which shows no password, where it cannot be
    opened."""
    if url is None:
        return InMemoryStorage()
    try:
        return _journal(url.removeprefix(_JOURNAL)) if url.startswith(_JOURNAL) else _database(url)
    except ImportError as error:
        reason = f"{error.__cause__ or error}: install the database's driver (postgresql: psycopg[binary])"
    except _storage_errors() as error:
        line = first_line(error)
        # A driver's message may quote the address, and with it the password.
        reason = without_password(line.replace(url, without_password(url)))
    except ValueError:  # its message may quote a part of the address
        reason = "it is no address of a database"
    raise UserError(f"the study's storage {without_password(url)} cannot be opened: {reason}")


def _journal(path: str) -> JournalStorage:
    file = Path(path).expanduser().absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    # A lock by O_EXCL holds on network file systems; one that a killed process left is taken over after 30 s.
    backend = JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file), grace_period=30))
    return JournalStorage(backend)


def _database(url: str) -> RDBStorage:
    check_database(url)
    options: dict[str, Any] = {}
    if url.startswith(_SQLITE):
        Path(url.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        options["pool_events"] = [(_use_write_ahead_log, "connect")]
    return RDBStorage(url, engine_kwargs=options)


def _use_write_ahead_log(connection: Any, _record: object) -> None:
    # A log without a sync per commit (sqlite.org/wal.html), since Optuna commits some ten times per trial: a killed
    # process loses nothing, a power cut at most the last trials' records, and never the file.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _storage_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError  # slow to import, and loaded already where it can be raised

    return (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError)
