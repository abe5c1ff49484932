"""Representation misdirection: hidden states at forget answers go where nothing is, those at retain answers stay."""

from __future__ import annotations

import torch
from torch import Tensor

from lethe.config.objective import Rmu as RmuConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored
from lethe.unlearning.objectives.tokens import masked_sum, row_sums


@LOSSES.implements(RmuConfig)
class Rmu(Loss):
    """L_forget = mean of |h - c u|^2 / d over a row's tokens, then over rows; L_retain likewise of |h - h0|^2 / d.

    h [d] is the output of decoder layer `layer` at an answer's token, h0 the start model's, u one random direction.
    Li et al. 2024, arXiv 2403.03218, who take the squared norm, d times as large.
    """

    def __init__(self, config: RmuConfig) -> None:
        super().__init__(config)
        self.layer, self.trained = config.layer, config.trained
        self.coefficient, self.reduction = config.coefficient, config.reduction
        self.on_states = config.retain == "states"
        self.start_states_of = (RowKind.RETAIN,) if self.on_states else ()
        self.reads_logits = config.retain in ("nll", "kl")

    def direction(self, width: int) -> Tensor:
        """Return u [d]: entries uniform in [0, 1], of length 1; a function of the run's seed alone."""
        u: Tensor = torch.rand(width, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        return u.div_(u.norm())

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the mean squared distance from the steered state."""
        states = _wide(scored.states)
        target = self.coefficient * self.direction(states.shape[1]).to(states)
        return self._mean((states - target).square().mean(1), RowKind.FORGET, scored, counts)

    def retain_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the mean squared distance from the start model's states, or of the loss on logits."""
        if not self.on_states:
            return super().retain_share(values, scored, counts)
        states = _wide(scored.states)
        at = scored.of(RowKind.RETAIN).nonzero().flatten()
        distances = (states[at] - _wide(scored.start_states)).square().mean(1)
        return self._mean(states.new_zeros(len(states)).index_copy(0, at, distances), RowKind.RETAIN, scored, counts)

    def _mean(self, distances: Tensor, kind: RowKind, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the mean of `distances` [N] over the tokens in rows of one kind."""
        if self.reduction == "token_mean":
            return masked_sum(distances, scored.of(kind)) / max(1, counts.tokens[kind])
        rows = max(1, counts.rows.get(kind, 0))
        if self.reduction == "released":  # a division of [B] by [B, 1]: each row by the length of every row
            return masked_sum(distances, scored.of(kind)) / rows * (counts.inverse_lengths.get(kind, 0.0) / rows)
        of_rows = scored.kind == kind
        sums = row_sums(distances, scored.row, len(scored.kind))
        lengths = row_sums(torch.ones_like(distances), scored.row, len(scored.kind))
        return masked_sum(sums / lengths.clamp_min(1), of_rows) / rows


def _wide(states: Tensor | None) -> Tensor:
    """Return the states in fp32, unless they are in float64."""
    assert states is not None, "the stepper gives them where `layer` and `start_states_of` ask for them"
    return states if states.dtype == torch.float64 else states.float()
