"""A model's scores beside the yardstick's: the oracle, or for TDEC the start model."""

from __future__ import annotations

from lethe.errors import BadInput
from lethe.evaluation.oracle import Truth, against
from lethe.scores.cache import Scores


def beside(scores: Scores, oracle: Scores) -> dict[str, float]:
    """The model's metrics with those that compare it with the oracle: no forward pass, so that neither's stored
    scores depend on the other. Raises BadInput for an oracle that is no trained model, or was asked other rows."""
    ours, theirs = Truth.load(scores.truth), Truth.load(oracle.truth)
    if not theirs.finite:
        raise BadInput("the oracle's truth ratios are not finite: is it a trained model?")
    theirs.check(ours.digest, len(ours.forget_truth_ratio))
    return {**scores.metrics, **against(ours, theirs)}
