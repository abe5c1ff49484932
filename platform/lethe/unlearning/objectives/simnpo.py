"""Simple negative preference optimisation: NPO on an answer's mean token log-probability, without a reference."""

from __future__ import annotations

from torch import Tensor

from lethe.config.objective import SimNpo as SimNpoConfig
from lethe.unlearning.objectives.base import LOSSES, Scored
from lethe.unlearning.objectives.sequences import SequenceLoss


@LOSSES.implements(SimNpoConfig)
class SimNpo(SequenceLoss):
    """L_forget = -(2/beta) mean_i log sigmoid(-beta S_i / len_i - delta). Fan et al. 2024, arXiv 2410.07163."""

    def __init__(self, config: SimNpoConfig) -> None:
        super().__init__(config, config.beta)
        self.delta = config.delta

    def margin(self, sums: Tensor, lengths: Tensor, scored: Scored) -> Tensor:
        """Return -beta S / len - delta, [R]."""
        return -self.beta * sums / lengths.clamp_min(1) - self.delta
