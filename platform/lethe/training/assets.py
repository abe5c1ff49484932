"""Where a run's inputs lie: torch-free, so that drivers can name them."""

from __future__ import annotations

from typing import Literal

from lethe.config.base import Frozen
from lethe.config.benchmark import TofuBenchmark
from lethe.config.model import EmbeddedModel


class Assets(Frozen):
    """Where a run's inputs lie on this machine. Paths never enter a run's digest.

    `origin` is what the start model was made from, for retraining: the embedded family's recipe, or the folder of a
    base checkpoint.
    """

    benchmark: TofuBenchmark
    data_digest: str
    model_digest: str
    start: str
    origin: EmbeddedModel | str | None = None
    cache: str
    device: Literal["cpu", "cuda"] = "cpu"
