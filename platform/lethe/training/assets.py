"""Where a run's inputs lie: torch-free, so that drivers can name them."""

from __future__ import annotations

from typing import Literal

from lethe.config.base import Frozen
from lethe.config.benchmark import TofuBenchmark


class Assets(Frozen):
    """Where a run's inputs lie on this machine. Paths never enter a run's digest."""

    benchmark: TofuBenchmark
    data_digest: str
    model_digest: str
    start: str
    cache: str
    device: Literal["cpu", "cuda"] = "cpu"
