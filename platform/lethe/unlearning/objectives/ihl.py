"""Inverted hinge loss: makes the true token less likely than the runner-up, and no further."""

from __future__ import annotations

from torch import Tensor

from lethe.config.objective import Ihl as IhlConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Loss, Scored
from lethe.unlearning.objectives.tokens import token_terms


@LOSSES.implements(IhlConfig)
class Ihl(Loss):
    """L_forget = mean of 1 + p_t - max_{v != t} p_v, in [0, 2]. LoKU: Cha et al. 2024, arXiv 2408.06621.

    Always on probabilities: the released code skips the softmax when all logits lie in [0, 1].
    """

    def forget_values(self, scored: Scored) -> Tensor:
        """Return [N]: the hinge at forget positions, log p elsewhere."""
        return token_terms(scored.logits, scored.labels, scored.of(RowKind.FORGET))
