"""Every supported Python on this machine: the shim, the command line, and with their packages configuration and search.

An interpreter is looked for in the environments that LETHE_PYTHONS lists (paths of interpreters, separated as in PATH),
then on PATH, then among pyenv's. What needs third-party packages is skipped for an interpreter without them.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MINORS = range(9, 17)
SUPPORTED = [f"3.{minor}" for minor in MINORS if SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}")]
NEIGHBOURS = ("3.10", "3.14")
REFUSAL = "lethe needs Python 3.11, 3.12 or 3.13: this is Python "
LIGHT = ("jinja2", "moocore", "numpy", "optuna", "psutil", "pydantic", "ray", "rich", "scipy", "yaml")


def run(interpreter: str, *arguments: str, cwd: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `interpreter` as a person would in `cwd`, and expect the exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.run([interpreter, *arguments], cwd=cwd, env=environment, text=True, capture_output=True)
    assert process.returncode == code, process.stdout + process.stderr
    return process


@cache
def find(version: str) -> str | None:
    """The first interpreter of `version` ("3.12") on this machine, None without one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        *filter(None, os.environ.get("LETHE_PYTHONS", "").split(os.pathsep)),
        sys.executable,
        shutil.which(f"python{version}") or "",
        *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python"))),
    ]
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(os.path.isfile, candidates):
        answer = subprocess.run([candidate, "-S", "-c", question], text=True, capture_output=True, cwd="/")
        if answer.stdout.strip() == version:  # a launcher of pyenv may stand for a version that is not there
            return candidate
    return None


@pytest.fixture(params=SUPPORTED)
def interpreter(request: pytest.FixtureRequest) -> str:
    """An interpreter of each supported version."""
    found = find(request.param)
    if found is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    return found


@pytest.fixture
def equipped(interpreter: str) -> str:
    """The same, where it has what configuration and search import."""
    source = f"from importlib.util import find_spec; print(*[n for n in {LIGHT} if not find_spec(n)])"
    if missing := run(interpreter, "-c", source).stdout.split():
        pytest.skip(f"{interpreter} lacks {', '.join(missing)}: an environment that has them goes into LETHE_PYTHONS")
    return interpreter


def test_cpython_passes_its_own_tests_of_platform(interpreter: str) -> None:
    found = run(interpreter, "-c", "from importlib.util import find_spec; print(find_spec('test.test_platform'))")
    if found.stdout.strip() == "None":
        pytest.skip(f"{interpreter} was installed without CPython's test_platform")
    output = run(interpreter, "-m", "test", "test_platform").stdout
    assert "Result: SUCCESS" in output
    assert "run=0" not in output


def test_shim_is_the_standard_module(interpreter: str, tmp_path: Path) -> None:
    source = "import platform; print(sorted(set(dir(platform)) - {'__path__'}), platform.uname(), platform.__file__)"
    assert run(interpreter, "-S", "-c", source).stdout == run(interpreter, "-S", "-c", source, cwd=tmp_path).stdout


def test_pip_and_venv_run_from_the_root(interpreter: str, tmp_path: Path) -> None:
    run(interpreter, "-m", "venv", "--without-pip", str(tmp_path / "new"))
    if run(interpreter, "-c", "from importlib.util import find_spec; print(find_spec('pip'))").stdout.strip() != "None":
        run(interpreter, "-m", "pip", "--version")
    refused = run(str(tmp_path / "new/bin/python"), "-m", "platform", code=2)
    assert "has no typer: make install" in refused.stderr, "the folder's platform ran, and has no packages"


def test_every_source_compiles_without_a_warning(interpreter: str) -> None:
    run(interpreter, "-S", "-W", "error", "-c", """if True:
        from pathlib import Path
        for path in [p for folder in ("platform", "benchmarks", "tests") for p in Path(folder).rglob("*.py")]:
            compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True)
    """)  # fmt: skip


def test_a_python_without_packages_is_told_to_install_them_in_one_line(interpreter: str) -> None:
    for command in ("platform", "platform.sweep"):
        refused = run(interpreter, "-S", "-m", command, code=2)
        assert refused.stderr.count("\n") == 1
        assert "has no typer: make install" in refused.stderr


def test_configuration_and_search_import_without_a_warning(equipped: str) -> None:
    run(equipped, "-c", """if True:
        import platform, pkgutil, sys, warnings
        from importlib import import_module
        warnings.filterwarnings("error", module=r"lethe\\b")
        for package in map(import_module, ("lethe.config", "lethe.search")):
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                import_module(module.name)
        assert "torch" not in sys.modules
    """)  # fmt: skip


@cache
def resolved(interpreter: str) -> str:
    """The study `tofu` and its first configurations."""
    return run(interpreter, "-m", "platform.sweep", "tofu", "--dry-run").stdout


def test_every_python_resolves_and_proposes_the_same(equipped: str) -> None:
    assert resolved(equipped) == resolved(sys.executable)


def test_an_unknown_key_is_refused_in_one_line(equipped: str) -> None:
    refused = run(equipped, "-m", "platform.sweep", "tofu", "--dry-run", "--set", "run.nosuch=1", code=2)
    assert refused.stderr.count("\n") == 1
    assert "'nosuch'" in refused.stderr


@pytest.mark.parametrize("version", NEIGHBOURS)
def test_another_python_is_refused_in_one_line(version: str) -> None:
    found = find(version)
    if found is None:
        pytest.skip(f"there is no Python {version} on this machine")
    for command in ("platform", "platform.sweep"):
        assert run(found, "-m", command, code=2).stderr == f"{REFUSAL}{version}\n"
    imported = run(found, "-c", "import platform; print(platform.python_version()); import lethe", code=1)
    assert imported.stdout.startswith(version)  # the standard module is there for any Python
    assert imported.stderr.splitlines()[-1] == f"ImportError: {REFUSAL}{version}"


def test_shim_makefile_and_metadata_name_the_same_versions() -> None:
    pretend = "import platform, sys; sys.version_info = (3, {}); import lethe"
    for minor in MINORS:
        run(sys.executable, "-S", "-c", pretend.format(minor), code=int(f"3.{minor}" not in SUPPORTED))
    assert re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"])) == SUPPORTED
    makefile = (ROOT / "Makefile").read_text()
    bounds = re.findall(r"\((\d), (\d+)\)", makefile.split("SUPPORTED := ")[1].split("\n")[0])
    assert [".".join(bound) for bound in bounds] == [SUPPORTED[0], SUPPORTED[-1]]
    sentence = f"lethe needs Python {', '.join(SUPPORTED[:-1])} or {SUPPORTED[-1]}"
    assert REFUSAL.startswith(sentence)
    assert f"NEEDS := {sentence}\n" in makefile
