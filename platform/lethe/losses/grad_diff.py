"""Gradient difference: away from the forget answers, towards the retain answers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lethe.losses.contract import Counts, Loss, Scored
from lethe.losses.tokens import masked_sum, token_log_probs


class GradDiff(Loss):
    """L_forget = -NLL(forget), unbounded below; L_retain = NLL(retain). Maini et al. 2024, arXiv 2401.06121."""

    name: ClassVar[str] = "grad_diff"

    def shares(self, scored: Scored, counts: Counts) -> tuple[Tensor, Tensor]:
        log_p = token_log_probs(scored.logits, scored.labels)
        forget = scored.is_forget[scored.row]
        return (
            masked_sum(log_p, forget) / max(1, counts.forget_tokens),
            -masked_sum(log_p, ~forget) / max(1, counts.retain_tokens),
        )
