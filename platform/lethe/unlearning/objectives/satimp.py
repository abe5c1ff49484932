"""Saturation and importance: gradient ascent that weighs tokens by how likely they are still."""

from __future__ import annotations

import torch
from torch import Tensor

from lethe.config.objective import SatImp as SatImpConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored, token_mean


@LOSSES.implements(SatImpConfig)
class SatImp(Loss):
    """L_forget = mean of p_t^beta1 (1 - p_t)^beta2 log p_t over forget tokens, the weight without a gradient.

    Yang et al. 2025, arXiv 2505.11953, as its authors' code has it.
    """

    def __init__(self, config: SatImpConfig) -> None:
        super().__init__(config)
        self.beta1, self.beta2 = config.beta1, config.beta2

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of a token mean; `values` are log-probabilities of the true tokens."""
        fixed = values.detach()
        # expm1 keeps 1 - p_t exact for tokens that are almost certain, as memorised ones are.
        weight = (self.beta1 * fixed).exp() * (-torch.expm1(fixed)).pow(self.beta2)
        return token_mean(weight * values, RowKind.FORGET, scored, counts)
