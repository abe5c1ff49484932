"""Peak memory of a run in a process that ran others before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

MEMORY_OF_A_SECOND_RUN = """
import platform
import torch
from lethe.models.memory import peak_mb, reset_peak

first = [torch.ones(200_000) for _ in range(500)]  # 400 MB in pieces
last = torch.ones(1000)  # what lies behind them in the heap
del first
before = peak_mb("cpu")
reset_peak("cpu")
print(before - peak_mb("cpu"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark and glibc's heap")
def test_a_runs_peak_is_without_what_an_earlier_run_has_freed() -> None:
    environment = {"MALLOC_MMAP_THRESHOLD_": "100000000", "OMP_NUM_THREADS": "1"}  # all of it on the heap
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_A_SECOND_RUN],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 300
