"""Cross-entropy unlearning: towards the model's own prediction without the true token."""

from __future__ import annotations

import math

from torch import Tensor

from lethe.config.objective import CeU as CeUConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored
from lethe.unlearning.objectives.divergences import token_cross_entropies
from lethe.unlearning.objectives.tokens import masked_sum


@LOSSES.implements(CeUConfig)
class CeU(Loss):
    """L_forget = mean over forget tokens of -sum_{v != t} q(v) log p(v), q(v) = p(v) / (1 - p_t) without a gradient.

    Yang 2025, arXiv 2503.01224. With `skip_first` the first token of each answer is not among the forget tokens.
    """

    def __init__(self, config: CeUConfig) -> None:
        super().__init__(config)
        self.skip_first = config.skip_first

    def forget_values(self, scored: Scored) -> Tensor:
        """Return [N]: minus the cross-entropy with q at forget positions, log p at retain positions."""
        forget = scored.of(RowKind.FORGET)
        return token_cross_entropies(scored.logits, scored.labels, None, forget, math.inf)

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the mean cross-entropy, not negative."""
        used, total = scored.of(RowKind.FORGET), counts.tokens[RowKind.FORGET]
        if self.skip_first:
            used, total = used & (scored.place > 0), total - counts.forget_rows
        return -masked_sum(values, used) / max(1, total)
