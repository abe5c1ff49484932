"""Preference optimisation: towards a refusal of the forget questions."""

from __future__ import annotations

from typing import ClassVar

from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import Counts, Loss, Scored, token_mean
from torch import Tensor


class PreferenceOptimization(Loss):
    """L_forget = NLL(question -> a refusal), a token mean. Maini et al. 2024, arXiv 2401.06121.

    Refusals stand in the forget answers' place: those are not forwarded.
    """

    name: ClassVar[str] = "preference_optimization"
    trains_on: ClassVar[tuple[RowKind, ...]] = (RowKind.REFUSAL, RowKind.RETAIN)

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Of the refusals' mean token loss."""
        return -token_mean(values, RowKind.REFUSAL, scored, counts)
