"""Direct preference optimisation: a refusal of the forget question over its true answer."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lethe.config.objective import AltPo as AltPoConfig
from lethe.config.objective import Dpo as DpoConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Scored
from lethe.unlearning.objectives.sequences import SequenceLoss


@LOSSES.implements(DpoConfig)
class Dpo(SequenceLoss):
    """L_forget = -(2/beta) mean log sigmoid(beta [(S - S0)(refusal) - (S - S0)(forget)]).

    Rafailov et al. 2023, arXiv 2305.18290; the factor 2 as in NPO, its one-sided form.
    """

    forget_kinds: ClassVar[tuple[RowKind, ...]] = (RowKind.FORGET, RowKind.REFUSAL)
    needs_start_log_probs: ClassVar[bool] = True

    def __init__(self, config: DpoConfig | AltPoConfig) -> None:
        super().__init__(config, config.beta)

    def margin(self, sums: Tensor, lengths: Tensor, scored: Scored) -> Tensor:
        """Return beta times the refusal's gain in log-probability over the start model less the forget answer's."""
        change = sums - scored.start_log_probs
        return self.beta * (change[scored.partner] - change)
