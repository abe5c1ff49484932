"""Direct preference optimisation: a refusal of the forget question over its true answer."""

from __future__ import annotations

from typing import ClassVar

from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import Scored
from lethe.unlearning.objectives.sequences import SequenceLoss
from torch import Tensor


class Dpo(SequenceLoss):
    """L_forget = -(2/beta) mean log sigmoid(beta [(S - S0)(refusal) - (S - S0)(forget)]).

    Rafailov et al. 2023, arXiv 2305.18290; the factor 2 as in NPO, its one-sided form.
    """

    name: ClassVar[str] = "dpo"
    trains_on: ClassVar[tuple[RowKind, ...]] = (RowKind.FORGET, RowKind.REFUSAL, RowKind.RETAIN)
    needs_reference: ClassVar[bool] = True

    def margin(self, sums: Tensor, lengths: Tensor, scored: Scored) -> Tensor:
        """Beta times how much more the refusal has gained than the forget answer."""
        change = sums - scored.reference
        return self.beta * (change[scored.partner] - change)
