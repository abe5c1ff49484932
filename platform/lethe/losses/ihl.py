"""Inverted hinge loss: the true token below the runner-up, and no further."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lethe.losses.contract import Counts, Loss, Scored
from lethe.losses.tokens import masked_sum, token_terms


class Ihl(Loss):
    """L_forget = mean of 1 + p_t - max_{v != t} p_v, in [0, 2]. LoKU, Cha et al. 2024, arXiv 2408.06621.

    Always on probabilities: the released code skips the softmax when all logits lie in [0, 1].
    """

    name: ClassVar[str] = "ihl"

    def shares(self, scored: Scored, counts: Counts) -> tuple[Tensor, Tensor]:
        forget = scored.is_forget[scored.row]
        terms = token_terms(scored.logits, scored.labels, forget)
        return (
            masked_sum(terms, forget) / max(1, counts.forget_tokens),
            -masked_sum(terms, ~forget) / max(1, counts.retain_tokens),
        )
