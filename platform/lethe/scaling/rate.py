"""What this machine's matrix units give: the yardstick of a step's utilisation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

SIDE, SIDE_ON_GPU = 768, 8192
TRIES = 7

Clock = Callable[[], float]


def matrix_rate(device: str, precision: str, clock: Clock = time.process_time) -> float:
    """FLOPs per second of this process's threads in square matrix products: the median of several, of which the first
    is not counted. `clock` is CPU time by default, which others on the machine hardly disturb; a GPU has wall time."""
    side = SIDE_ON_GPU if device == "cuda" else SIDE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    tell = time.perf_counter if device == "cuda" else clock
    seconds = []
    for _ in range(TRIES + 1):
        wait()
        began = tell()
        torch.mm(a, b)
        wait()
        seconds.append(tell() - began)
    return 2.0 * side**3 / statistics.median(seconds[1:])
