"""Simple negative preference optimisation: NPO by an answer's own likelihood, without a reference."""

from __future__ import annotations

from typing import ClassVar

from lethe.config.objective import SimNpo as SimNpoConfig
from lethe.unlearning.objectives.base import Scored
from lethe.unlearning.objectives.sequences import SequenceLoss
from torch import Tensor


class SimNpo(SequenceLoss):
    """L_forget = -(2/beta) mean_i log sigmoid(-beta S_i / len_i - delta). Fan et al. 2024, arXiv 2410.07163."""

    name: ClassVar[str] = "simnpo"

    def __init__(self, config: SimNpoConfig) -> None:
        super().__init__(config)
        self.delta = config.delta

    def margin(self, sums: Tensor, lengths: Tensor, scored: Scored) -> Tensor:
        """-beta S / len - delta."""
        return -self.beta * sums / lengths.clamp_min(1) - self.delta
