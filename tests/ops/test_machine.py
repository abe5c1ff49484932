"""The doctor's quick checks, each with what is well and what is not; and the command that makes them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from lethe.errors import UserError
from lethe.ops.doctor import machine
from lethe.ops.doctor.checks import Check, Skipped, run_checks
from tests.conftest import ROOT, free_port

USER, WORD = "ada", "correct-horse"


def outcome(check: Callable[[], str]) -> tuple[str, str]:
    """The state and the line of a check."""
    lines: list[str] = []
    run_checks([Check("it", check)], lines.append)
    (line,) = lines
    assert "\n" not in line
    state, _, text = line.split(maxsplit=2)
    return state, text


def test_every_finding_is_one_line_and_bad_ones_are_counted() -> None:
    def look(what: Exception) -> Callable[[], str]:
        def raises() -> str:
            raise what

        return raises

    lines: list[str] = []
    checks = [
        Check("a", lambda: "here"),
        Check("b", look(UserError("two\nlines: mend it"))),
        Check("c", look(Skipped("not here"))),
    ]
    assert run_checks(checks, lines.append) == 1
    assert lines == ["ok   a         here", "bad  b         two lines: mend it", "--   c         not here"]


def test_python_versions_that_are_refused_and_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(machine.python)[0] == "ok"
    monkeypatch.setattr(machine, "PYTHONS", ((2, 7),))
    state, text = outcome(machine.python)
    assert state == "bad"
    assert "needs 3.11, 3.12 or 3.13" in text
    assert "make install" in text


def test_missing_and_unfitting_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state, text = outcome(machine.packages)
    assert state == "ok"
    assert "torch" in text
    required = machine._required()
    for wrong, named in (("torch>=99", "torch 2"), ("no-such-package>=1", "no-such-package is missing")):
        monkeypatch.setattr(machine, "_required", lambda wrong=wrong: [*required, wrong])
        state, text = outcome(machine.packages)
        assert state == "bad"
        assert named in text
        assert "make install" in text
        assert text.count(";") == 0


def test_machine_names_cores_memory_and_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\necho "GPU 0: A Card (UUID: GPU-1)"\necho "GPU 1: A Card (UUID: GPU-2)"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert machine.gpus() == ["A Card", "A Card"]
    assert outcome(machine.machine)[1].endswith("A Card, A Card")
    driver.write_text("#!/bin/sh\nexit 9\n")
    assert outcome(machine.machine)[1].endswith("no GPU")


def test_storage_is_written_read_and_cleaned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    state, text = outcome(machine.storage)
    assert state == "ok"
    assert str(tmp_path / "home") in text
    assert not list((tmp_path / "home").iterdir())
    monkeypatch.setattr(machine, "LEAST_FREE_GB", 1e9)
    state, text = outcome(machine.storage)
    assert state == "bad"
    assert "GB free" in text
    assert "set LETHE_HOME" in text
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "file/below"))
    state, text = outcome(machine.storage)
    assert state == "bad"
    assert "cannot write to" in text
    assert "set LETHE_HOME" in text


@pytest.fixture
def mlflow_with_login() -> Iterator[str]:
    """A server that wants to know who asks."""
    accepted = "Basic " + base64.b64encode(f"{USER}:{WORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers.get("Authorization") == accepted else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No login anywhere; the home folder."""
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_mlflow_with_a_wrong_login_is_refused(
    mlflow_with_login: str, nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_with_login)
    state, text = outcome(machine.mlflow)
    assert state == "bad"
    assert "refuses requests without credentials" in text
    assert "MLFLOW_TRACKING_PASSWORD" in text
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-word")
    state, text = outcome(machine.mlflow)
    assert state == "bad"
    assert "refuses these credentials" in text
    assert "wrong-word" not in text
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", WORD)
    assert outcome(machine.mlflow) == ("ok", f"{mlflow_with_login}, logged in")


def test_mlflows_own_file_of_credentials(mlflow_with_login: str, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_with_login)
    (nobody / ".mlflow").mkdir()
    (nobody / ".mlflow/credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = {USER}\nmlflow_tracking_password = {WORD}\n"
    )
    assert outcome(machine.mlflow) == ("ok", f"{mlflow_with_login}, logged in")


def test_a_missing_mlflow_server_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = f"http://{USER}:{WORD}@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    state, text = outcome(machine.mlflow)
    assert state == "bad"
    assert "cannot reach the MLflow store" in text
    assert WORD not in text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert outcome(machine.mlflow)[0] == "ok"


def quickly(**environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """`python -m platform.doctor --quick`, and the seconds of processor time that it took."""
    before = psutil.Process().cpu_times()
    done = subprocess.run(
        [sys.executable, "-m", "platform.doctor", "--quick"],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    after = psutil.Process().cpu_times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return done, spent


def test_the_quick_form_takes_less_than_three_seconds() -> None:
    done, seconds = quickly()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", name] for name in ("python", "packages", "machine", "storage", "ray", "optuna", "mlflow")
    ]
    assert seconds < 3


def test_every_failed_check_has_a_line_and_the_exit_code_is_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store, ray = f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    done, _ = quickly(LETHE_HOME=str(tmp_path / "file/below"), MLFLOW_TRACKING_URI=store, RAY_ADDRESS=ray)
    assert done.returncode == 2
    states = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert [name for name, line in states.items() if line.startswith("bad")] == ["storage", "ray", "mlflow"]
    assert ray in states["ray"]
    assert store in states["mlflow"]
    assert len(states) == 7
