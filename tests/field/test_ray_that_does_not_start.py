"""Paths and moments in which Ray starts no process: one line each, at once where the path says it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lethe.errors import UserError
from lethe.pool import cluster
from tests.conftest import ROOT


def refused(monkeypatch: pytest.MonkeyPatch, temporary: Path | str) -> str:
    """What a study with this temporary folder is told before Ray is imported."""
    monkeypatch.setenv("RAY_TMPDIR", str(temporary))
    with pytest.raises(UserError) as error:
        cluster.check_address()
    return str(error.value)


def test_a_temporary_folder_that_ray_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "too long for the names of Ray's sockets (at most 39)" in refused(monkeypatch, "/tmp/" + "x" * 35)
    assert "path with a space: temporary files at /tmp/a b/ray" in refused(monkeypatch, "/tmp/a b")
    assert "cannot write to /dev/null/ray: Not a directory" in refused(monkeypatch, "/dev/null")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 34)
    cluster.check_address()
    Path("/tmp/" + "x" * 34, "ray").rmdir()
    Path("/tmp/" + "x" * 34).rmdir()


def test_an_environment_whose_path_has_a_space_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/home/a b/.venv/bin/python")
    with pytest.raises(UserError, match=r"Python at /home/a b/\.venv/bin/python: make the environment in a folder"):
        cluster.check_address()


SCRIPT = """
import sys
import time
import platform
from lethe.config.study import load_study
from lethe.errors import exit_codes
from lethe.interrupts import run_command
from lethe.pool.cluster import check_address, prepare_environment
from lethe.study import session

prepare_environment()
check_address()
sys.executable = {python!r}  # what Ray starts its own Python processes with


@exit_codes
def main():
    with session.Session(load_study("tofu"), None) as started:
        started.pool()
        from lethe.pool import worker_pool

        worker_pool.SILENCE_S = 3.0
        time.sleep(60)
    return 0


sys.modules["command"] = sys.modules["__main__"]
run_command("command")
"""


def run(python: Path, script: str) -> tuple[int, str]:
    """Exit code and the last line of a driver whose Ray starts `python`, which is this script."""
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", SCRIPT.format(python=str(python))]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=150, check=False)
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.long  # Ray itself waits half a minute
def test_ray_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    began = time.monotonic()
    code, line = run(tmp_path / "python", "exit 1")
    assert (code, line.startswith("lethe: Ray does not start on this machine: ")) == (75, True), line
    assert time.monotonic() - began < 90


@pytest.mark.slow
def test_workers_that_never_come_up_are_one_line_and_nothing_stays(tmp_path: Path) -> None:
    wait = f'case "$*" in *default_worker*) exec sleep 77177;; esac; exec {shlex.quote(sys.executable)} "$@"'
    code, line = run(tmp_path / "python", wait)
    assert (code, line.partition(": what")[0]) == (
        75,
        "lethe: Ray's first actor, the run queue, has not answered for 3 s",
    )
    assert [process for process in psutil.process_iter(["cmdline"]) if "77177" in (process.info["cmdline"] or ())] == []
