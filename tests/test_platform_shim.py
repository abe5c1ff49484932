"""From the repository root `platform` is the standard module, whole, plus the commands."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from lethe.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOORS = sorted(p for p in (ROOT / "platform").glob("*.py") if not p.name.startswith("_"))
# -S: no site-packages, so `lethe` can only come from the checkout.
BARE = ("-S", "-c")


def python(*arguments: str, cwd: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run this interpreter from `cwd` as a person would, and expect the exit code."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    process = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, text=True, capture_output=True)
    assert process.returncode == code, process.stdout + process.stderr
    return process


def script(source: str, cwd: Path = ROOT) -> str:
    return python(*BARE, textwrap.dedent(source), cwd=cwd).stdout.strip()


def test_cpython_passes_its_own_tests_of_platform() -> None:
    if not (Path(os.__file__).parent / "test/test_platform.py").exists():
        pytest.skip("this Python was installed without CPython's test_platform")
    output = python("-m", "test", "test_platform").stdout
    assert "Result: SUCCESS" in output
    assert "run=0" not in output


@pytest.mark.parametrize(
    "arguments",
    [("-m", "pip", "--version"), ("-m", "pytest", "--version"), ("-c", "import torch")],
    ids=" ".join,
)
def test_what_imports_platform_runs_from_the_root(arguments: tuple[str, ...]) -> None:
    if "import torch" in arguments and find_spec("torch") is None:
        pytest.skip("torch is not installed for this Python")
    python(*arguments)


def test_venv_runs_from_the_root(tmp_path: Path) -> None:
    python("-m", "venv", str(tmp_path / "new"))
    assert (tmp_path / "new/bin/pip").exists()


def test_names_values_and_imports_are_the_standard_modules(tmp_path: Path) -> None:
    source = """
        import sys
        before = set(sys.modules)
        import json, platform
        public = [platform.platform(), list(platform.uname()), platform.python_build()]
        loaded = set(sys.modules) - before
        print(json.dumps([public, sorted(dir(platform)), platform.__doc__, sorted(loaded)]))
    """
    values, names, doc, loaded = json.loads(script(source))
    plain_values, plain_names, plain_doc, plain_loaded = json.loads(script(source, cwd=tmp_path))
    assert values == plain_values
    assert doc == plain_doc
    assert set(names) - set(plain_names) == {"__path__"}
    assert set(plain_names) <= set(names)
    extra = set(loaded) - set(plain_loaded)
    assert extra <= {"importlib", "importlib._bootstrap", "importlib._bootstrap_external",
                     "importlib.machinery", "warnings"}  # fmt: skip


def test_source_reload_pickle_and_copy_behave() -> None:
    script("""
        import copy, importlib, inspect, os, pickle, platform, sys
        standard = os.path.join(os.path.dirname(os.__file__), "platform.py")
        with open(standard, encoding="utf-8") as file:
            text = file.read()
        for _ in range(2):
            assert platform.__file__ == inspect.getsourcefile(platform.system) == standard
            assert inspect.getsource(platform) == text
            assert inspect.getsource(platform.system) in text
            uname = platform.uname()
            assert pickle.loads(pickle.dumps(uname)) == copy.deepcopy(uname) == uname
            assert type(uname).__module__ == "platform"
            finders = list(sys.meta_path)
            assert importlib.reload(platform) is platform is sys.modules["platform"]
            assert sys.meta_path == finders
        import lethe.errors
    """)


def test_there_is_one_lethe() -> None:
    script("""
        import os, platform
        os.chdir("/")  # what was found stays found
        import lethe
        home = os.path.join(platform.__path__[0], "lethe")
        assert lethe.__path__ == [home], lethe.__path__
        for source in ("import platform.lethe", "from platform import lethe",
                       "import platform.lethe.errors", "from platform.lethe.errors import guard"):
            try:
                exec(source)
            except ModuleNotFoundError as error:
                assert str(error).endswith("import lethe") and "\\n" not in str(error), error
            else:
                raise AssertionError(source)
        assert platform.__path__[0] not in __import__("sys").path
    """)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.stem)
def test_commands_are_no_top_level_modules(door: Path) -> None:
    if door.stem in sys.stdlib_module_names:  # which is then found, and not ours
        found = script(f"import platform, lethe, {door.stem}; print(getattr({door.stem}, '__file__', ''))")
        assert not found.startswith(str(ROOT))
        return
    process = python(*BARE, f"import platform, lethe, {door.stem}", code=1)
    assert f"No module named '{door.stem}'" in process.stderr


def test_missing_standard_module_is_one_clear_line() -> None:
    broken = "import os; os.__file__ = '/nowhere/os.py'; import platform"
    error = python(*BARE, broken, code=1).stderr
    assert "During handling" not in error
    assert "direct cause" not in error
    reason = "the standard library's platform module is not at /nowhere/platform.py"
    assert error.splitlines()[-1] == f"ImportError: {reason}"


def test_every_command_has_one_door_with_the_first_line_of_its_help() -> None:
    trees = {door.stem: ast.parse(door.read_text()) for door in DOORS}
    assert set(trees) == set(COMMANDS)
    for name, tree in trees.items():
        command = ast.parse((ROOT / "platform/lethe/cli" / f"{name}.py").read_text())
        (main,) = [node for node in command.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        assert ast.get_docstring(main).splitlines()[0] == ast.get_docstring(tree)
        _, first_import, guarded = tree.body
        assert ast.unparse(first_import) == "from lethe.interrupts import run_command"
        assert isinstance(guarded, ast.If)
        assert ast.unparse(guarded.body) == f"run_command('lethe.cli.{name}')"


def test_no_door_covers_a_name_of_the_standard_module(tmp_path: Path) -> None:
    # `import platform.version` would replace the function platform.version().
    names = script("import platform; print(*dir(platform))", cwd=tmp_path).split()
    assert not {door.stem for door in DOORS} & set(names)


def test_module_lists_the_commands_whole() -> None:
    output = python("-m", "platform").stdout
    for door in DOORS:
        assert f"  {door.stem} " in output
        assert ast.get_docstring(ast.parse(door.read_text())).rstrip(".") in output
    assert "Usage: python -m platform " in output


def test_module_refuses_an_unknown_command_in_one_line() -> None:
    process = python("-m", "platform", "nosuch", code=2)
    assert process.stderr.count("\n") == 1
    assert not process.stdout
    assert "'nosuch'" in process.stderr
    assert all(name in process.stderr for name in COMMANDS)


@pytest.mark.parametrize("words", [("--terse",), ("nonaliased",), ("terse", "--nonaliased")])
def test_module_still_prints_the_platform_string(words: tuple[str, ...], tmp_path: Path) -> None:
    ours, standard = (python("-m", "platform", *words, cwd=cwd).stdout for cwd in (ROOT, tmp_path))
    assert ours == standard
