"""Negative preference optimisation: gradient ascent on whole answers that fades as the model moves away from them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lethe.config.objective import Npo as NpoConfig
from lethe.unlearning.objectives.base import LOSSES, Scored
from lethe.unlearning.objectives.sequences import SequenceLoss


@LOSSES.implements(NpoConfig)
class Npo(SequenceLoss):
    """L_forget = -(2/beta) mean_i log sigmoid(-beta (S - S0)_i). Zhang et al. 2024, arXiv 2404.05868.

    S is a row's summed answer log-probability and S0 the start model's; with `reduction: token_mean`
    (as SOUL released it) both are divided by the row's answer length.
    """

    needs_start_log_probs: ClassVar[bool] = True

    def __init__(self, config: NpoConfig) -> None:
        super().__init__(config, config.beta)
        self.per_token = config.reduction == "token_mean"

    def margin(self, sums: Tensor, lengths: Tensor, scored: Scored) -> Tensor:
        """Return -beta (S - S0), [R]."""
        change = sums - scored.start_log_probs
        return -self.beta * (change / lengths.clamp_min(1) if self.per_token else change)
