"""Primal-dual unlearning: flat logits at forget answers, subject to a bound on the retain loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from lethe.config.objective import Pdu as PduConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Loss, Scored
from lethe.unlearning.objectives.margins import token_margins


@LOSSES.implements(PduConfig)
class Pdu(Loss):
    """L_forget = mean of (max_v z_v - mean_v z_v)^2 over forget tokens, minimised where L_retain is at most epsilon.

    Entesari et al. 2025, arXiv 2506.05314. `gamma` is the dual variable: it weighs L_retain, and after each step from
    the end of the warm-up on it becomes max(0, gamma + step_size (L_retain - epsilon)). Its constant gamma epsilon has
    no gradient and is left out of the value.
    """

    changing: ClassVar[tuple[str, ...]] = ("gamma",)

    def __init__(self, config: PduConfig) -> None:
        super().__init__(config)
        self.epsilon, self.step_size, self.warmup_epochs = config.epsilon, config.step_size, config.warmup_epochs
        self.late = (RowKind.FORGET,) if config.logits == "released" else ()

    def forget_values(self, scored: Scored) -> Tensor:
        """Return [N]: the squared margin at forget positions, log p elsewhere."""
        return token_margins(scored.logits, scored.labels, scored.of(RowKind.FORGET))

    def after_step(self, losses: Mapping[str, float], epoch: int) -> None:
        """Move the dual variable up where the retain loss of the step was above its bound, else down."""
        retain = losses["retain_loss"]
        if epoch > self.warmup_epochs and retain:  # 0: a step without retain rows, which says nothing of the bound
            self.gamma = max(0.0, self.gamma + self.step_size * (retain - self.epsilon))
