"""The start model's thresholds, which TDEC compares every trial with."""

from __future__ import annotations

from typing import Any

from lethe.benchmarks.base import ReferenceValues
from lethe.config.base import Frozen


class Thresholds(Frozen, ReferenceValues):
    """The start model's results on text that no model was trained on: mean MA, mean EL, perplexity."""

    memorization_accuracy: float
    extraction_likelihood: float
    perplexity: float

    def dump(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return self.model_dump()
