"""The reference of all keys: docs/reference.md says what the configuration models say."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORED = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


@cache
def written() -> str:
    """In a process of its own: other tests register components in this one."""
    command = [sys.executable, "-m", "lethe.config.reference"]
    return subprocess.run(command, cwd=ROOT / "platform", text=True, capture_output=True, check=True).stdout


def test_the_stored_reference_is_what_the_models_say() -> None:
    how = "cd platform && python -m lethe.config.reference > ../docs/reference.md"
    assert written() == STORED, how


def test_every_key_has_a_meaning() -> None:
    assert [line for line in written().splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


@pytest.mark.parametrize(
    "row",
    [
        "| `run.objective.beta` | `simnpo` | number, above 0 | `2.5` |",
        "| `run.optimizer.learning_rate` | `lion` | number, above 0 | `0.0001` |",
        "| `benchmark.allow_overlap` | all | true or false | `false` |",
        "| `run.engine.stage` | `0`, `1`, `2`, `3` | `0` |",
        "| `search.sampler` | `tpe`, `nsga2`, `random`, `gp` | `tpe` |",
        "| `benchmark.forget` | `tofu` | text, like `^forget\\d\\d$` | `forget10` |",
        "| `objectives.METRIC.direction` | `minimize`, `maximize` |  |",
        "| `model.learning_rate` | `finetuned` | number, above 0 | `1e-5, with a LoRA 2e-4` |",
    ],
)
def test_a_row_has_owner_values_and_default(row: str) -> None:
    assert row in written()


def test_a_key_with_a_condition_says_it() -> None:
    row = next(line for line in written().splitlines() if "run.optimizer.hessian_interval" in line)
    assert re.search(r"only with `hessian: gnb` \|$", row)
