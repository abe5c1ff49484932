"""Programs beside us, and the passwords that they get: without the extra, in a second."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from lethe.cli.services import main
from lethe.errors import UserError
from lethe.ops.dev_services import process, supervisor
from lethe.ops.dev_services.passwords import exports, passwords
from lethe.ops.dev_services.process import Child, check_port

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(99)"])
time.sleep(99)
"""


def python(source: str, folder: Path) -> Child:
    return Child("program", [sys.executable, "-c", source], folder, os.environ)


def test_a_program_that_will_not_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_S", 0.3)
    with python(STUBBORN, tmp_path) as program, python("import time; time.sleep(99)", tmp_path / "..") as other:
        program.wait_for(lambda: "up" in program.log.read_text(), 20)
        processes = [psutil.Process(program.process.pid), *psutil.Process(program.process.pid).children()]
        program.end()
        assert len(processes) == 2
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)
        assert not other.ended


def test_a_program_that_does_not_start_is_one_line_with_its_reason(tmp_path: Path) -> None:
    with python("raise OSError('no more doughnuts')", tmp_path) as program, pytest.raises(UserError) as error:
        program.wait_for(lambda: False, 20)
    assert str(error.value) == f"program does not start: OSError: no more doughnuts ({tmp_path}/program.log)"


def test_a_program_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        python("import time; time.sleep(99)", tmp_path) as program,
        pytest.raises(UserError, match=r"not ready after 0\.5 s"),
    ):
        program.wait_for(lambda: False, 0.5)
    assert time.monotonic() - began < 10


def test_a_port_in_use_is_refused_with_the_option_to_change() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* give another one with --port"):
            check_port(port, "--port")
    check_port(port, "--port")
    with pytest.raises(UserError, match="port 70000"):
        check_port(70000, "--port")


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "EXTRA", ("no_such_module",))
    assert main([]) == 2
    assert capsys.readouterr().err == "lethe: the services need no_such_module: pip install 'lethe[services]'\n"


def test_passwords_are_made_once_and_read_by_their_owner_alone(tmp_path: Path) -> None:
    made = passwords(tmp_path)
    assert passwords(tmp_path) == made
    assert len(set(vars(made).values())) == 5
    file = tmp_path / "passwords.json"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(json.dumps({"database": "x"}))
    with pytest.raises(UserError, match=r"passwords\.json cannot be read"):
        passwords(tmp_path)


def test_a_shell_reads_the_exported_variables() -> None:
    assert exports({"A": "plain", "B": "two words; $HOME"}) == "export A=plain\nexport B='two words; $HOME'\n"
