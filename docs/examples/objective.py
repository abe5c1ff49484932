"""A loss of your own: lowers the probability of the forget tokens, the further the less likely they should end."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import Counts, Scored, token_mean


def forget_share(values: Tensor, scored: Scored, counts: Counts, settings: Mapping[str, float]) -> Tensor:
    """Return this micro-batch's share of the mean of p^power over forget tokens; `values` are log-probabilities."""
    return token_mean((settings.get("power", 1.0) * values).exp(), RowKind.FORGET, scored, counts)
