"""A cluster that grows, loses a node and shrinks, with real raylets on this machine: what `make demo-autoscaling` does,
with runs that only wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.autoscaling import config
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def turns(counts: list[int]) -> list[int]:
    """Where the number of nodes begins to rise or to fall, and both ends."""
    inner = [b for a, b, c in zip(counts, counts[1:], counts[2:], strict=False) if (b - a) * (c - b) < 0]
    return [counts[0], *inner, counts[-1]]


def test_nodes_come_when_asked_for_are_replaced_and_leave(tmp_path: Path) -> None:
    trace, most = tmp_path / "trace.json", config()["max_workers"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.autoscaling", "--null", "--trace", str(trace)],
        cwd=ROOT, env={**os.environ, "LETHE_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(trace.read_text())
    assert turns([count for _, count in found["nodes"]]) == [0, most, most - 1, most, 0], found
    (killed_at, killed), (done_at, ended) = found["marks"]
    assert (killed, ended) == ("a node is killed", "all runs done")
    times = {count: at for at, count in found["nodes"]}
    assert killed_at < times[most] < done_at, "runs went on when another node was there"
    assert found["verdicts"] == ["complete"] * most
    assert found["moved"] == [True, *[False] * (most - 1)]
