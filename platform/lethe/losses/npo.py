"""Negative preference optimisation: gradient ascent that stops where the model has moved away."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lethe.config.objective import Npo as NpoConfig
from lethe.losses.contract import Counts, Loss, Scored
from lethe.losses.tokens import masked_sum, row_sums, token_log_probs


class Npo(Loss):
    """L_forget = -(2/beta) mean_i log sigmoid(-beta (S - S0)_i). Zhang et al. 2024, arXiv 2404.05868.

    S is a row's summed answer log-probability and S0 the start model's; with `reduction: token_mean`
    (as SOUL released it) both are divided by the row's answer length.
    """

    name: ClassVar[str] = "npo"
    needs_reference: ClassVar[bool] = True

    def __init__(self, config: NpoConfig) -> None:
        super().__init__(config)
        self.beta = config.beta
        self.per_token = config.reduction == "token_mean"

    def shares(self, scored: Scored, counts: Counts) -> tuple[Tensor, Tensor]:
        log_p = token_log_probs(scored.logits, scored.labels)
        forget = scored.is_forget[scored.row]
        return (
            self._forget_sum(scored, log_p) / max(1, counts.forget_rows),
            -masked_sum(log_p, ~forget) / max(1, counts.retain_tokens),
        )

    def _forget_sum(self, scored: Scored, log_p: Tensor) -> Tensor:
        rows = scored.is_forget.shape[0]
        lengths = row_sums(log_p.new_ones(log_p.shape), scored.row, rows)
        change = row_sums(log_p, scored.row, rows) - scored.reference
        if self.per_token:
            change = change / lengths.clamp_min(1)
        # A row without a scored token (padding of the batch) would add log 2 times 2/beta.
        present = scored.is_forget & (lengths > 0)
        return masked_sum((-2 / self.beta) * logsigmoid(-self.beta * change), present)
