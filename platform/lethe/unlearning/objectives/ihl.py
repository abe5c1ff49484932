"""Inverted hinge loss: the true token below the runner-up, and no further."""

from __future__ import annotations

from typing import ClassVar

from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import Loss, Scored
from lethe.unlearning.objectives.tokens import token_terms
from torch import Tensor


class Ihl(Loss):
    """L_forget = mean of 1 + p_t - max_{v != t} p_v, in [0, 2]. LoKU, Cha et al. 2024, arXiv 2408.06621.

    Always on probabilities: the released code skips the softmax when all logits lie in [0, 1].
    """

    name: ClassVar[str] = "ihl"

    def token_values(self, scored: Scored) -> Tensor:
        """The hinge at forget positions, log p elsewhere."""
        return token_terms(scored.logits, scored.labels, scored.of(RowKind.FORGET))
