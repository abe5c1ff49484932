"""Gradient difference with a divergence: the prediction at retain answers stays the start model's."""

from __future__ import annotations

from lethe.config.objective import Kl as KlConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Loss


@LOSSES.implements(KlConfig)
class Kl(Loss):
    """L_forget = -NLL(forget); L_retain = KL(p_ref || p), the mean over retain answer tokens, p_ref the start model's.

    Maini et al. 2024, arXiv 2401.06121. The entropy of p_ref is in it, so it is 0 at the start and never negative.
    SOUL's released code differs in four points: it weighs log p_ref by p instead of log p by p_ref (the reversed
    divergence), leaves the entropy out, averages over padding, and multiplies the forget term by gamma.
    With the reduction "released" L_retain is open-unlearning's mean over all positions, prompt and padding included.
    """

    def __init__(self, config: KlConfig) -> None:
        super().__init__(config)
        if config.reduction == "released" and config.retain == "kl":
            self.everywhere = {RowKind.RETAIN: 0}
