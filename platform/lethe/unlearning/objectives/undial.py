"""Self-distillation: towards the start model's prediction with the true token's logit lowered."""

from __future__ import annotations

from torch import Tensor

from lethe.config.objective import Undial as UndialConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored, token_mean
from lethe.unlearning.objectives.divergences import token_cross_entropies

IGNORED = -100  # the label of prompt and padding in open-unlearning


@LOSSES.implements(UndialConfig)
class Undial(Loss):
    """L_forget = mean over forget tokens of -sum_v q(v) log p(v), q = softmax(z0 - beta onehot(t)), z0 the start
    model's logits and t the true token.

    Dong et al. 2024, arXiv 2402.10052. With the reduction "released" as open-unlearning's code: the mean is over prompt
    and padding as well, where t is its label -100 taken as an index, vocabulary entry V - 100.
    """

    needs_start_logits = True

    def __init__(self, config: UndialConfig) -> None:
        super().__init__(config)
        self.beta = config.beta
        if config.reduction == "released":
            self.everywhere = {RowKind.FORGET: 1}  # the last position predicts no token

    def forget_values(self, scored: Scored) -> Tensor:
        """Return [N]: minus the cross-entropy with q at forget positions, log p at retain positions."""
        start, forget = self.start_logits_at(RowKind.FORGET, scored), scored.of(RowKind.FORGET)
        labels = scored.labels.masked_fill(scored.place < 0, IGNORED % scored.logits.shape[1])
        return token_cross_entropies(scored.logits, labels, start, forget, self.beta)

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the mean cross-entropy, not negative."""
        return -token_mean(values, RowKind.FORGET, scored, counts)
