"""The command line: help at once, one line for what is no command line, and words that a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from lethe.cli.main import main
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.run import Offload, Quantisation

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "ray", "numpy", "mlflow", "rich", "argparse"}  # typer itself reads values with pydantic


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sweep"], "lethe: missing argument 'STUDY': see lethe sweep --help"),
        (["sweep", "tofu", "--trails", "3"], "lethe: no such option: --trails (Possible options: --trials): see lethe"),
        (["sweep", "tofu", "--trials", "three"], "lethe: invalid value for '--trials': "),
        (["sweep", "tofu", "soul"], "lethe: got unexpected extra argument(s) (soul): see lethe sweep --help"),
        (["sweep", "tofu", "--seed"], "lethe: option '--seed' requires an argument: see lethe sweep --help"),
        (["scaling", "plan", "--model-params", "7e9"], "lethe: missing option '--gpu-memory': see lethe scaling plan"),
        (["scaling", "plan", "--gpu-memory", "8e10", "--model", "x", "--model-params", "7e9"], "lethe: the size of"),
        (["scaling", "plan", "--gpu-memory", "8e10"], "lethe: the size of the model is needed: give --model-params"),
        (["gc", "--yes", "--dry-run"], "lethe: --yes: frees, and --dry-run does not"),
        (["--nosuch"], "lethe: no such option: --nosuch: see lethe --help"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_what_is_no_command_line_is_refused_in_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert not out


def test_list_help_completion_and_refusals_load_nothing_heavy() -> None:
    source = (
        "import platform, sys; from lethe.cli.main import main;"
        "[main(words.split()) for words in ('', 'sweep --help', 'scaling plan -h', 'nosuch', 'sweep --nosuch')];"
        f"sys.exit(str({HEAVY} & sys.modules.keys()) if {HEAVY} & sys.modules.keys() else 0)"
    )
    process = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr


def test_help_has_examples_defaults_and_all_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--help"]) == 0
    score = capsys.readouterr().out
    assert "[default: tofu]" in score
    assert "\n    lethe score models:/" in score
    assert all(name in score for name in BENCHMARKS)
    assert main(["scaling", "plan", "--help"]) == 0
    plan = capsys.readouterr().out
    assert f"<{'|'.join(get_args(Offload))}>" in plan
    assert f"<{'|'.join(get_args(Quantisation))}>" in plan


def complete(words: str, **environment: str) -> list[str]:
    """What bash offers after `words`, of which the last may be incomplete, or empty."""
    given = {"_LETHE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    source = "import platform; from lethe.interrupts import run_command; run_command('lethe.cli.main')"
    command = [sys.executable, "-c", source]
    process = subprocess.run(
        command, cwd=ROOT, env=os.environ | given | environment, capture_output=True, text=True, check=True
    )
    assert process.stderr == ""
    return process.stdout.split()


def test_completion_of_ids_loads_nothing_that_takes_seconds(tmp_path: Path) -> None:
    source = (
        "import platform, sys; from lethe.cli.completion import studies_to_run; studies_to_run('tofu');"
        f"sys.exit(str({HEAVY} & sys.modules.keys()) if {HEAVY} & sys.modules.keys() else 0)"
    )
    process = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr


def test_a_shell_completes_commands_options_studies_and_ids(tmp_path: Path) -> None:
    assert complete("lethe sc") == ["score", "scaling"]
    assert complete("lethe sweep tofu-f", LETHE_HOME=str(tmp_path)) == ["tofu-full"]
    assert complete("lethe sweep tofu --res") == ["--resume"]
    assert {"plan", "tofu"} <= set(complete("lethe scaling "))
    assert complete("lethe scaling plan --gpu") == ["--gpu-memory"]
    for name in ("tofu-1a2b3c4d", "soul-00000000", ".gc-tofu-1"):
        (tmp_path / "studies" / name).mkdir(parents=True)
    assert complete("lethe gc --study to", LETHE_HOME=str(tmp_path)) == ["tofu-1a2b3c4d"]
    assert complete("lethe show so", LETHE_HOME=str(tmp_path)) == ["soul-00000000"]
    assert complete("lethe sweep tofu-1", LETHE_HOME=str(tmp_path)) == ["tofu-1a2b3c4d"]
