"""Weighted gradient ascent: away from the forget answers, the less the less likely a token has become."""

from __future__ import annotations

from torch import Tensor

from lethe.config.objective import Wga as WgaConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored, token_mean


@LOSSES.implements(WgaConfig)
class Wga(Loss):
    """L_forget = mean of p_t^beta log p_t over forget tokens, the weight p_t^beta without a gradient.

    Wang et al. 2025, arXiv 2502.19301, as its authors' code has it.
    """

    def __init__(self, config: WgaConfig) -> None:
        super().__init__(config)
        self.beta = config.beta

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of a token mean; `values` are log-probabilities of the true tokens."""
        weight = (self.beta * values.detach()).exp()
        return token_mean(weight * values, RowKind.FORGET, scored, counts)
