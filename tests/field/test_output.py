"""Commands print the user's text as it is, and end without a traceback where their reader leaves early."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from lethe.cli.main import main
from lethe.records import TrialRecord, Verdict, why_without_result
from lethe.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "list": [],
    "refused": ["sweep", "nosuch"],
    "gc": ["gc"],
    "plan": ["scaling", "plan", "--model-params", "7e9", "--gpu-memory", "80e9"],
    "dry run": ["sweep", "tofu", "--dry-run"],
}


def lethe(*arguments: str, **environment: str) -> list[str]:
    """The command line of a command in a process of its own."""
    program = "import platform, sys; from lethe.cli.main import main; sys.exit(main(sys.argv[1:]))"
    given = [f"{name}={value}" for name, value in environment.items()]
    return ["env", *given, sys.executable, "-c", program, *arguments]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_left_ends_a_command_quietly(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as after `| head`
    process = subprocess.run(lethe(*COMMANDS[command]), cwd=ROOT, stdout=writer, stderr=subprocess.STDOUT, timeout=240)
    os.close(writer)
    assert process.returncode == 141


def test_an_error_still_has_its_line_where_only_the_output_is_unread() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = lethe("sweep", "nosuch")
    process = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert process.returncode == 2
    assert process.stderr.startswith("lethe: unknown study 'nosuch'")


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    # "~" is what the standard library gets for a user that the system does not know.
    process = subprocess.run(lethe("gc", HOME="~", LETHE_HOME=""), cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "no home folder is known" in process.stderr


def test_characters_that_the_output_cannot_encode_are_escaped(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")  # a name that is no UTF-8
    command = lethe("gc", PYTHONIOENCODING="ascii", LETHE_HOME=f"{tmp_path}/\udcff")
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert r"\udcff" in process.stdout


ODD = "/data/[b]x[/b]/[/red]:smile:[0]"


def test_tables_and_lines_show_brackets_as_they_are() -> None:
    terminal = Terminal(file=io.StringIO(), width=200)
    table = Table(ODD, title=ODD, caption=ODD)
    table.add_row(ODD)
    terminal.print(table)
    terminal.print(ODD)
    assert terminal.file.getvalue().count(ODD) == 5


def test_a_path_with_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "[b]" / "x[/b]"
    process = subprocess.run(lethe("gc", LETHE_HOME=str(home)), cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert str(home) in process.stdout.replace("\n", "")


def test_every_console_of_ours_shows_text_as_it_is() -> None:
    made = re.compile(r"^from rich\.console import|^import rich", re.MULTILINE)
    library = ROOT / "platform" / "lethe"
    users = {str(path.relative_to(library)) for path in library.rglob("*.py") if made.search(path.read_text("utf-8"))}
    assert users == {"terminal.py"}


def test_a_study_without_any_result_is_told_from_one_with_some() -> None:
    def trial(number: int, verdict: Verdict, reason: str = "") -> TrialRecord:
        return TrialRecord(number=number, run=f"r{number}", verdict=verdict, reason=reason, params={})

    failed = [trial(0, "diverged"), trial(1, "error", "first line\nCUDA error"), trial(2, "error", "CUDA error")]
    assert why_without_result(failed) == "none of 3 trials has a result; 2 ended error: CUDA error"
    assert why_without_result([*failed, trial(3, "stopped")]) is None
    assert why_without_result([]) is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["score", ""], "the first argument: an empty argument"),
        (["score", "x", "--oracle", ""], "--oracle: an empty argument"),
        (["sweep", "tofu", "--publish="], "--publish: an empty argument"),
        (["score", "x", "--json", "{folder}"], "--json {folder}: is a folder"),
        (["gc", "--older-than", "-1", "--yes"], "--older-than -1: must be a number of days"),
        (["gc", "--older-than", "nan"], "--older-than nan: must be a number of days"),
        (["services", "--port", "99999"], "--port 99999: must lie between 1 and 65535"),
        (["sweep", "tofu", "--set", f"name={'x' * 300}"], "name: must have at most 120 characters"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("{folder}", str(tmp_path)) for word in arguments]) == 2
    assert capsys.readouterr().err.startswith(f"lethe: {line.replace('{folder}', str(tmp_path))}")
