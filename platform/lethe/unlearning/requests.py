"""Where a run's inputs lie: torch-free, so that drivers can name them."""

from __future__ import annotations

from typing import Literal

from lethe.config.base import Frozen
from lethe.config.benchmark import AnyBenchmark
from lethe.config.model import AnyEmbedded


class Assets(Frozen):
    """Where a run's inputs lie on this machine. Paths never enter a run's digest.

    `origin` is what the start model was made from, for retraining: the embedded family's recipe, or the folder of a
    base checkpoint.
    """

    benchmark: AnyBenchmark
    data_digest: str
    model_digest: str
    start: str
    origin: AnyEmbedded | str | None = None
    cache: str
    device: Literal["cpu", "cuda"] = "cpu"
