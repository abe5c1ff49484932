"""Runs of different widths on a cluster of three CPUs, where two of two workers do not fit: none waits for ever."""

import json
import sys

import pytest

from tests.conftest import private_head

pytestmark = pytest.mark.slow

SCRIPT = """
import json, tempfile
from pathlib import Path

import platform
from lethe.pool.messages import EntryPoint
from lethe.pool.null_run import NullRequest, pids_of
from lethe.pool.worker_pool import Pool
from lethe.pool.resources import Shape
from lethe.pool.cluster import connect

connect("auto")
pool = Pool(Path(tempfile.mkdtemp()) / "groups")
pool.warm(Shape(workers=2))
widths = [2, 2, 1, 3, 1]
request = NullRequest(seconds=0.2)
asked = [pool.submit(f"run-{i}", EntryPoint.NULL, request, Shape(workers=width)) for i, width in enumerate(widths)]
found = [len(set(pids_of(pool.result(run)))) for run in asked]
pool.close()
print(json.dumps({"asked": widths, "found": found}))
"""


@pytest.mark.long
def test_runs_of_one_two_and_three_workers_all_end() -> None:
    with private_head(cpus=3) as head:
        done = head.run(sys.executable, "-c", SCRIPT, timeout=150)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["found"] == answer["asked"]
