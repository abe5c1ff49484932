"""Peak memory of one run in a process that executes many."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

_MIB = 2**20


def reset_peak(device: str) -> None:
    """Reset the peak that `peak_mb` returns: CUDA's own counter, or the kernel's resident high-water mark."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):  # no such file, or a sandbox that forbids it: the peak is then the process's
            Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: str) -> float:
    """Return the highest memory since `reset_peak` in MiB: allocated on CUDA, resident on a CPU; 0 where the kernel
    does not report it."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / _MIB
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
