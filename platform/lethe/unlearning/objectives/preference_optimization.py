"""Preference optimisation: towards a refusal of the forget questions."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lethe.config.objective import PreferenceOptimization as PreferenceOptimizationConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored, token_mean


@LOSSES.implements(PreferenceOptimizationConfig)
class PreferenceOptimization(Loss):
    """L_forget = NLL(question -> a refusal), a token mean. Maini et al. 2024, arXiv 2401.06121.

    Refusals take the place of the forget answers, which are not forwarded.
    """

    forget_kinds: ClassVar[tuple[RowKind, ...]] = (RowKind.REFUSAL,)

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the refusals' mean token loss."""
        return -token_mean(values, RowKind.REFUSAL, scored, counts)
