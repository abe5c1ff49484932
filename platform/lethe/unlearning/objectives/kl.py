"""Gradient difference with a divergence: the prediction at retain answers stays the start model's."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lethe.config.objective import Kl as KlConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Loss, Scored
from lethe.unlearning.objectives.divergences import token_divergences


@LOSSES.implements(KlConfig)
class Kl(Loss):
    """L_forget = -NLL(forget); L_retain = KL(p_ref || p), the mean over retain answer tokens, p_ref the start model's.

    Maini et al. 2024, arXiv 2401.06121. The entropy of p_ref is in it, so it is 0 at the start and never negative.
    SOUL's released code differs in four points: it weighs log p_ref by p instead of log p by p_ref (the reversed
    divergence), leaves the entropy out, averages over padding, and multiplies the forget term by gamma.
    """

    start_logits_of: ClassVar[RowKind | None] = RowKind.RETAIN

    def token_values(self, scored: Scored) -> Tensor:
        """Return [N]: log p at forget positions, -KL at retain positions."""
        if scored.start_logits is None:
            raise ValueError("kl needs the start model's logits")
        return token_divergences(scored.logits, scored.labels, scored.start_logits, scored.of(RowKind.RETAIN))
