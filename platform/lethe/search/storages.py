"""Where Optuna keeps a study: memory, SQLite, a database server, or a journal file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from lethe.config.addresses import check_database, without_password
from lethe.config.search import Search
from lethe.errors import UserError
from lethe.storage.paths import home
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

_SQLITE, _JOURNAL = "sqlite:///", "journal:"


def storage_url(search: Search) -> str:
    """The study's storage as it says, else SQLite in the storage root."""
    return search.storage or f"{_SQLITE}{home() / 'optuna.db'}"


def open_storage(url: str | None) -> BaseStorage:
    """Optuna's storage at an SQLAlchemy URL or at `journal:PATH`, a file that several machines may share over NFS;
    None is memory, for previews and tests. Raises BadInput, without passwords, for one that cannot be opened.

    SQLite keeps a write-ahead log without a sync per commit (sqlite.org/wal.html): a killed process loses nothing, a
    power cut at most the last trials' records, and never the file. Optuna commits some ten times per trial.
    """
    if url is None:
        return InMemoryStorage()
    try:
        return _journal(url.removeprefix(_JOURNAL)) if url.startswith(_JOURNAL) else _database(url)
    except ImportError as error:
        said = f"{error.__cause__ or error}: install the database's driver (postgresql: psycopg[binary])"
    except (OSError, *_database_errors()) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # What a driver says may quote the address, and with it the password.
        said = without_password(reason.replace(url, without_password(url)))
    except ValueError:  # it may quote a part of the address
        said = "it is no address of a database"
    raise UserError(f"the study's storage {without_password(url)} cannot be opened: {said}")


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
        options["pool_events"] = [(_write_ahead, "connect")]
    return RDBStorage(url, engine_kwargs=options)


def _write_ahead(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _database_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, optuna.exceptions.StorageInternalError)
