"""Where the store is, and refusing one that is not there before anything starts."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from lethe.config.addresses import without_password
from lethe.errors import UserError
from lethe.tracking.connection import artifact_root, check_uri, resolve_uri, sqlite_path, study_link


def refusal(uri: str) -> str:
    with pytest.raises(UserError) as caught:
        check_uri(uri)
    message = str(caught.value)
    assert "\n" not in message
    return message


def unanswered(*_: object) -> None:
    """A name server that does not answer."""
    time.sleep(0.3)
    raise OSError("unknown")


NO_SCHEMES = ["ftp://host/x", "/a/folder", "file:///a/folder"]
NO_PLACES = ["sqlite://", "sqlite:///:memory:", "http://", "http://host:port"]


def test_the_uri_comes_from_argument_then_environment_then_storage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = resolve_uri()
    assert default == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    assert artifact_root(default) == (tmp_path.resolve() / "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert resolve_uri() == "http://somewhere:5000"
    assert resolve_uri("sqlite:///mine.db") == "sqlite:///mine.db"


def test_sqlite_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///a/mlflow.db") == Path.cwd() / "a/mlflow.db"
    assert sqlite_path(f"sqlite:///{tmp_path}/a%20b.db?mode=rw") == tmp_path / "a b.db"


def test_server_that_answers_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_uri(f"http://127.0.0.1:{server.getsockname()[1]}")


def test_unreachable_server_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert f"127.0.0.1:{port}" in refusal(f"http://127.0.0.1:{port}")


def test_silent_server_and_unknown_name_are_refused_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fill = [socket.socket() for _ in range(4)]
        for taken in fill:
            taken.setblocking(False)
            taken.connect_ex(("127.0.0.1", port))
        assert "cannot reach" in refusal(f"http://127.0.0.1:{port}")
        for taken in fill:
            taken.close()
    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    monkeypatch.setattr("lethe.tracking.connection.CONNECT_LIMIT_S", 0.1)
    assert "no answer" in refusal("http://nowhere.invalid:5000")


def test_passwords_are_not_shown() -> None:
    assert without_password("https://me:secret@host:1/x") == "https://host:1/x"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "secret" not in refusal(f"http://me:secret@127.0.0.1:{port}")
    page = "http://host/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=tofu-1a"
    assert study_link("http://me:secret@host/", "1", "tofu-1a") == page


@pytest.mark.parametrize("uri", NO_SCHEMES + NO_PLACES)
def test_an_unknown_kind_of_store_is_refused(uri: str) -> None:
    assert "cannot track to" in refusal(uri)


def test_database_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, but as long as a header")
    assert "not a SQLite database" in refusal(f"sqlite:///{tmp_path}/file")
    assert "cannot track to" in refusal(f"sqlite:///{tmp_path}/file/mlflow.db")
    assert "cannot track to" in refusal(f"sqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "no permission" in refusal(f"sqlite:///{tmp_path}/mlflow.db")
