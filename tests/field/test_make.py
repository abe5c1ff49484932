"""`make` with a storage root that has a space, and with a Python that cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDER = '#!/bin/sh\necho "$LETHE_HOME: $*"\n'

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **environment}
    given.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(["make", "-s", *arguments], cwd=ROOT, env=given, text=True, capture_output=True)


@pytest.mark.parametrize("as_variable", [True, False])
def test_ui_takes_a_storage_root_with_a_space(as_variable: bool, tmp_path: Path) -> None:
    program = tmp_path / "venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(RECORDER)  # in place of the command, which would serve until it is ended
    program.chmod(0o755)
    (tmp_path / "venv" / ".lethe-installed").touch()
    home = {"LETHE_HOME": f"{tmp_path}/a b"}
    given = [f"LETHE_HOME={home['LETHE_HOME']}"] if as_variable else []
    shown = make("ui", f"VENV={tmp_path}/venv", *given, **({} if as_variable else home)).stdout.splitlines()
    assert shown == [f"{tmp_path}/a b: -m platform.ui --port 5000"]


@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("/no/such/python", "PYTHON=/no/such/python is no Python"),
        ("/bin/ls", "PYTHON=/bin/ls is no Python"),
        ("", "found none, name one with PYTHON=..."),
    ],
)
def test_a_python_that_cannot_be_used_is_named(python: str, line: str, tmp_path: Path) -> None:
    refused = make("install", f"VENV={tmp_path}/venv", f"PYTHON={python}")
    assert refused.returncode != 0
    assert f"lethe needs Python 3.11, 3.12 or 3.13: {line}\n" in refused.stderr
    assert not (tmp_path / "venv").exists()


def test_an_environment_with_a_space_is_refused(tmp_path: Path) -> None:
    assert f"VENV={tmp_path}/a b: a folder without a space is needed" in make("help", f"VENV={tmp_path}/a b").stderr
