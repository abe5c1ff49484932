"""What is installed, pinned, ignored and uploaded."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lethe
from lethe.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def sources(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*.py")}


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "-q"]
    process = subprocess.run(command, text=True, capture_output=True)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the sources, so that no build/ is left, and its wheel installed in a folder."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("platform", "search_spaces"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    (copy / "search_spaces").mkdir(exist_ok=True)
    (copy / "search_spaces/a_study.yaml").write_text("benchmark: tofu\n")
    target = copy.parent / f"{copy.name}-installed"
    pip("wheel", "--no-build-isolation", "-w", str(copy / "dist"), str(copy))
    pip("install", "--target", str(target), str(next((copy / "dist").glob("*.whl"))))
    return copy, target


def test_wheel_has_every_module_and_study_and_nothing_at_the_top(built: tuple[Path, Path]) -> None:
    copy, installed = built
    assert sources(installed / "lethe") == sources(copy / "platform/lethe")
    studies = {p.name for p in (copy / "search_spaces").glob("*.yaml")}
    assert {p.name for p in (installed / "lethe/search_spaces").iterdir()} == studies
    top = {p.name for p in installed.iterdir()}
    assert top == {"lethe", "bin", f"lethe-{lethe.__version__}.dist-info"}


def test_wheel_has_its_licence_its_metadata_and_the_mark_of_a_typed_package(built: tuple[Path, Path]) -> None:
    installed = built[1]
    assert (installed / "lethe/py.typed").is_file()
    (information,) = installed.glob("*.dist-info")
    assert (information / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    metadata = (information / "METADATA").read_text().split("\n\n")[0].splitlines()
    for line in ("Author: the lethe developers", "License-Expression: Apache-2.0", "Requires-Python: <3.14,>=3.11"):
        assert line in metadata


def test_installed_command_lists_the_commands_from_anywhere(built: tuple[Path, Path], tmp_path: Path) -> None:
    installed = built[1]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    process = subprocess.run([installed / "bin/lethe"], cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    assert all(f"\n  {name} " in process.stdout for name in COMMANDS)


def test_lock_is_sorted_exact_pins_and_nothing_else() -> None:
    lines = lock_lines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in lines)
    names = [line.split("==")[0].lower() for line in lines]
    assert names == sorted(set(names))
    assert "lethe" not in names


def test_lock_satisfies_every_range() -> None:
    pins = {canonicalize_name(name): v for name, v in (line.split("==") for line in lock_lines())}
    ranges = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    for requirement in map(Requirement, ranges):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} is pinned to {pin}"


def test_job_upload_is_small_and_has_what_runs(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import _zip_files

    needed = {f"platform/{name}" for name in sources(ROOT / "platform")}
    needed |= {f"search_spaces/{p.name}" for p in (ROOT / "search_spaces").glob("*.yaml")}
    upload = tmp_path / "upload.zip"
    _zip_files(str(ROOT), [], str(upload), include_gitignore=True)
    names = set(zipfile.ZipFile(upload).namelist())
    assert needed <= names
    unwanted = {".git", ".venv", "tests", "docs", "benchmarks", "reports", "cluster"}
    assert not unwanted & {name.split("/")[0] for name in names}
    assert not any("__pycache__" in name for name in names)
    assert upload.stat().st_size < 2.5e6


def test_git_ignores_output_but_no_source() -> None:
    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert ignored(".venv/x")
    assert ignored("reports/tofu/report.html")
    assert ignored("build/x")
    assert not ignored("reports/example/report.html")
    kept = [f"platform/{name}" for name in sources(ROOT / "platform")] + ["search_spaces/x.yaml"]
    assert not [path for path in kept if ignored(path)]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell: not as a part of the make that runs these tests."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {k: v for k, v in os.environ.items() if k not in outer}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, text=True, capture_output=True)


def test_install_is_done_once_again_after_changes_and_after_an_interruption(tmp_path: Path) -> None:
    log, broken, venv = tmp_path / "log", tmp_path / "broken", tmp_path / "venv"
    stub = venv / "bin/python"
    stub.parent.mkdir(parents=True)
    stub.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *"install -q --no-deps"*) test ! -e {broken} ;; esac\n'
    )
    stub.chmod(0o755)

    def installs() -> int:
        return sum("pip install" in line for line in log.read_text().splitlines())

    broken.touch()
    assert make("install", f"VENV={venv}").returncode != 0
    assert installs() == 2
    broken.unlink()
    assert make("install", f"VENV={venv}").returncode == 0
    assert installs() == 4
    assert make("install", f"VENV={venv}").returncode == 0
    assert installs() == 4
    os.utime(venv / ".lethe-installed", (0, 0))  # older than the lock
    assert make("install", f"VENV={venv}").returncode == 0
    assert installs() == 6


def test_install_refuses_another_python_in_one_line(tmp_path: Path) -> None:
    process = make("install", f"VENV={tmp_path / 'venv'}", "PYTHON=false")
    assert process.returncode != 0
    said = [line for line in process.stderr.splitlines() if not line.startswith("make")]
    assert said == ["lethe needs Python 3.11, 3.12 or 3.13: PYTHON=false is no Python"]
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("pip_said", "said"),
    [
        (
            "WARNING: a remark|ERROR: Could not find a version that satisfies the requirement numpy==2.4.6|"
            "ERROR: No matching distribution found for numpy==2.4.6 (from -r requirements.lock)",
            "lethe: numpy==2.4.6 has no wheel for Python 3.13.0 on this machine: "
            "remove {venv} and choose another of 3.11, 3.12 and 3.13 with PYTHON=...",
        ),
        (
            "WARNING: Retrying after connection broken|ERROR: No matching distribution found for numpy==2.4.6",
            "WARNING: Retrying after connection broken|ERROR: No matching distribution found for numpy==2.4.6",
        ),
        ("ERROR: no space left on device", "ERROR: no space left on device"),
    ],
    ids=["no wheel", "no index", "another failure"],
)
def test_install_names_a_pin_without_a_wheel_in_one_line(tmp_path: Path, pip_said: str, said: str) -> None:
    venv = tmp_path / "venv"
    stub = venv / "bin/python"
    stub.parent.mkdir(parents=True)
    stub.write_text(
        "#!/bin/sh\n"
        'case "$*" in --version) echo Python 3.13.0 ;;\n'
        f"*'install -q --only-binary'*) echo '{pip_said}' | tr '|' '\\n' >&2; exit 1 ;; esac\n"
    )
    stub.chmod(0o755)
    process = make("install", f"VENV={venv}")
    assert process.returncode != 0
    assert not (venv / ".lethe-installed").exists()
    lines = [line for line in process.stderr.splitlines() if not line.startswith("make")]
    assert lines == said.format(venv=venv).split("|")


def test_ci_runs_the_tests() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
