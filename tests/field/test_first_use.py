"""Databases that a first study makes: whole or not at all, also with a second first study beside it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from lethe.errors import UserError
from lethe.ops.doctor import machine
from lethe.ops.doctor.checks import run_checks
from lethe.search import storages
from lethe.storage.files import make_once
from lethe.storage.sqlite_schema import MLFLOW, OPTUNA
from lethe.tracking import connection
from tests.conftest import ROOT

OLDER = "451aebb31d03"  # a revision that MLflow has known for years


def test_a_process_that_is_killed_leaves_no_file_and_two_make_one(tmp_path: Path) -> None:
    target = tmp_path / "made"

    def half(new: Path) -> None:
        new.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        make_once(target, half)
    os.waitpid(child, 0)
    assert not target.exists()

    both = threading.Barrier(2)

    def whole(new: Path) -> None:
        new.write_text(f"{threading.get_ident()}")
        both.wait(10)

    threads = [threading.Thread(target=make_once, args=(target, whole)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in {str(thread.ident) for thread in threads}
    make_once(target, half)  # there is one
    assert [path.name for path in tmp_path.iterdir() if ".made" not in path.name] == ["made"]


def test_two_first_studies_open_one_storage(tmp_path: Path) -> None:
    url, opened = f"sqlite:///{tmp_path}/deep/optuna.db", []
    threads = [threading.Thread(target=lambda: opened.append(storages.open_storage(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [storage.get_all_studies() for storage in opened] == [[]] * 4
    assert {path.name.partition("-")[0] for path in (tmp_path / "deep").iterdir()} == {"optuna.db"}
    OPTUNA.check(tmp_path / "deep/optuna.db", url)


def database(path: Path, version: str | None, runs: int = 0) -> str:
    """A file with a table of runs and the version of its tables; its address."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE runs (run_uuid TEXT)")
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.executemany("INSERT INTO runs VALUES (?)", [(str(run),) for run in range(runs)])
        made.executemany("INSERT INTO alembic_version VALUES (?)", [(version,)] if version else [])
    return f"sqlite:///{path}"


def refusal(address: str) -> str:
    with pytest.raises(UserError) as refused:
        connection.check_uri(address)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_tables_that_mlflow_would_refuse_are_refused_first_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "mlflow db.db"
    newest, known = MLFLOW.revisions()
    assert OLDER in known
    connection.check_uri(database(path, newest))
    for half_made in (None, OLDER):
        assert "it holds no runs: move the file away" in refusal(database(path, half_made))
    address = database(path, OLDER, runs=1)
    assert refusal(address).endswith(f"wants {newest}: copy the file, then run `mlflow db upgrade {address}`")
    assert "a newer mlflow or another program made them" in refusal(database(path, "0123456789ab", runs=1))
    path.write_bytes(connection.SQLITE_HEADER + b"no more")
    assert "move the file away" in refusal(address)
    path.write_bytes(b"")
    connection.check_uri(address)


def test_optuna_and_mlflow_in_one_file_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/both.db"
    storages.open_storage(url)
    assert "its tables have the version v" in refusal(url)
    newest, _ = MLFLOW.revisions()
    mlflows = database(tmp_path / "mlflow.db", newest, runs=1)
    with pytest.raises(UserError, match=f"its tables have the version {newest}, the installed optuna wants v"):
        storages.open_storage(mlflows)


def test_the_doctor_says_how_to_mend_files_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 40}")
    database(tmp_path / "mlflow.db", OLDER, runs=1)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as made, made:
        made.execute("CREATE TABLE trials (trial_id INTEGER)")
    lines: list[str] = []
    run_checks([check for check in machine.quick() if check.name in ("ray", "optuna", "mlflow")], lines.append)
    ray, optuna, mlflow = lines
    assert ray.startswith("bad  ray")
    assert "sockets (at most 39): set RAY_TMPDIR to a short path" in ray
    assert optuna.startswith("bad  optuna")
    assert "it holds no trials: move the file away" in optuna
    assert mlflow.endswith("run `mlflow db upgrade sqlite:///" + str(tmp_path / "mlflow.db") + "`")


MAKE = """
import platform, sys
from functools import partial
from pathlib import Path
from lethe.storage.files import make_once
from lethe.tracking.mlflow_runs import _make_database
make_once(Path(sys.argv[1]), partial(_make_database, Path(sys.argv[1]).parent.as_uri()))
"""


@pytest.mark.slow
def test_mlflow_killed_at_its_tables_leaves_none_and_the_next_study_has_all(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", MAKE, str(path)]
    first = subprocess.Popen(command, cwd=ROOT)
    while not any(new.stat().st_size for new in tmp_path.glob(".mlflow.db-*/mlflow.db")):
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert not path.exists()
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("SELECT version_num FROM alembic_version").fetchone() == (MLFLOW.revisions()[0],)
        assert made.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    connection.check_uri(f"sqlite:///{path}")
