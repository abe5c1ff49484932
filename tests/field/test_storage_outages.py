"""A study's storage that fails for a while, or for good: waited for, then one line, and no result is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from lethe.errors import StudyBrokenError
from lethe.search import storages
from lethe.search.study_store import StudyStore
from tests.search.conftest import make_study, start  # noqa: F401  # fixtures

DONE = {"verdict": "complete", "forget": 0.5, "utility": 0.7}


@contextmanager
def locked(database: Path, seconds: float) -> Iterator[None]:
    """Another program's transaction, from the start of the block on."""
    other = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    end = threading.Timer(seconds, lambda: (other.execute("ROLLBACK"), other.close()))
    end.start()
    yield
    end.join()


@pytest.fixture
def store(make_study: Callable[..., Any], start: dict[str, float], tmp_path: Path) -> StudyStore:  # noqa: F811
    store = StudyStore(make_study(), f"sqlite:///{tmp_path / 'optuna.db'}", "mine")
    store.freeze(start)
    return store


def test_a_locked_database_is_waited_for(store: StudyStore, tmp_path: Path) -> None:
    number = store.ask().number
    began = time.monotonic()
    with locked(tmp_path / "optuna.db", 2.5):
        store.tell(number, DONE)
        assert time.monotonic() - began > 2.4
    assert store.optuna.trials[number].state == TrialState.COMPLETE


def test_a_database_locked_for_good_is_named_and_nothing_told_is_lost(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = store.ask().number
    monkeypatch.setattr(storages, "OUTAGE_S", 0.5)
    with locked(tmp_path / "optuna.db", 6):
        with pytest.raises(StudyBrokenError, match=f"storage sqlite:///{tmp_path}/optuna.db cannot .*: .*is locked"):
            store.tell(number, DONE)
        began = time.monotonic()
        with pytest.raises(StudyBrokenError):
            store.interrupt_pending()
        assert time.monotonic() - began < 2, "an outage is waited out once"
        assert store.pending == 1
    store.tell(number, DONE)
    assert store.optuna.trials[number].state == TrialState.COMPLETE


def test_a_file_that_was_moved_away_is_named_and_may_come_back(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = store.ask().number
    database, away = tmp_path / "optuna.db", tmp_path / "away"
    database.rename(away)
    threading.Timer(0.5, away.rename, [database]).start()
    store.tell(number, DONE)
    database.rename(away)
    monkeypatch.setattr(storages, "OUTAGE_S", 0.3)
    with pytest.raises(StudyBrokenError, match="its file is gone"):
        store.ask()


def test_a_full_disk_is_not_waited_for(store: StudyStore) -> None:
    number = store.ask().number
    engine = store._stored._backend.engine  # type: ignore[attr-defined]

    @event.listens_for(engine, "begin")
    def limit(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # at least as many as there are

    began = time.monotonic()
    with pytest.raises(StudyBrokenError, match="cannot be used: database or disk is full"):
        store.note(number, **{f"filler{index}": "x" * 1000 for index in range(100)})
    assert time.monotonic() - began < 5


def test_a_postgresql_server_that_starts_again_is_waited_for(
    make_study: Callable[..., Any],  # noqa: F811
    start: dict[str, float],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL is installed")
    from lethe.ops.dev_services.postgres import postgres
    from lethe.ops.dev_services.process import Child

    monkeypatch.setenv("PGPASSWORD", "secret")
    folder = Path(tempfile.mkdtemp(prefix="lethe-pg-", dir="/tmp"))  # the server may run as another user
    folder.chmod(0o755)
    started: list[Child] = []

    def start_again() -> None:
        user = None if os.geteuid() else "nobody"
        started.append(Child("again", server.process.args, folder, {"LC_ALL": "C"}, user=user))

    with postgres(folder, "secret") as (server, url):
        store = StudyStore(make_study(), url, "mine")
        store.freeze(start)
        number = store.ask().number
        server.end()
        later = threading.Timer(2.0, start_again)
        later.start()
        store.tell(number, DONE)
        later.join()
        assert store.optuna.trials[number].state == TrialState.COMPLETE
        started[0].end()
    shutil.rmtree(folder)
