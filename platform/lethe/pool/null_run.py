"""A run that does nothing: what the pool itself costs, and how it behaves when processes die."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from lethe.pool.worker import Ranks


def run_nothing(payload: dict[str, Any], report: Callable[[dict[str, Any]], None], ranks: Ranks) -> dict[str, Any]:
    """Report `epochs` times, sleeping `seconds` before each; the last report is the result."""
    epochs = payload.get("epochs", 1)
    for epoch in range(1, epochs + 1):
        time.sleep(payload.get("seconds", 0.0))
        values = {
            "epoch": epoch,
            "optimizer_step": epoch,
            "pids": ranks.gather(os.getpid()),
            **payload.get("metrics", {}),
        }
        if epoch < epochs:
            report(values)
    return {**values, "verdict": "complete"}
