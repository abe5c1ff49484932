"""A model's scores beside the yardstick's: the oracle, or for TDEC the start model."""

from __future__ import annotations

import numpy as np

from lethe.errors import BadInput
from lethe.evaluation.tofu import forget_quality
from lethe.scores.cache import Scores


def beside(scores: Scores, oracle: Scores) -> dict[str, float]:
    """The model's metrics with those that compare it with the oracle: no forward pass, so that neither's stored
    scores depend on the other. Raises BadInput for an oracle that is no trained model."""
    theirs = np.array(oracle.truth, dtype=np.float64)
    if not np.isfinite(theirs).all():
        raise BadInput("the oracle's truth ratios are not finite: is it a trained model?")
    return {**scores.metrics, **forget_quality(np.array(scores.truth, dtype=np.float64), theirs)}
