"""The base of objectives over whole answers: L_forget = -(2/beta) mean_i log sigmoid(margin_i)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn.functional import logsigmoid

from lethe.config.objective import Objective
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import Counts, Loss, Scored
from lethe.unlearning.objectives.tokens import masked_sum, row_sums


class SequenceLoss(Loss, ABC):
    """An objective with one margin per forget row, positive where the row is forgotten."""

    def __init__(self, config: Objective, beta: float) -> None:
        super().__init__(config)
        self.beta = beta

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of a mean over forget rows, not over tokens."""
        rows = scored.kind.shape[0]
        lengths = row_sums(values.new_ones(values.shape), scored.row, rows)
        margin = self.margin(row_sums(values, scored.row, rows), lengths, scored)
        # A row without a scored token (padding of the batch) would add log 2 times 2/beta.
        present = (scored.kind == RowKind.FORGET) & (lengths > 0)
        return masked_sum((-2 / self.beta) * logsigmoid(margin), present) / max(1, counts.forget_rows)

    @abstractmethod
    def margin(self, sums: Tensor, lengths: Tensor, scored: Scored) -> Tensor:
        """Return the margin of each row [R], which is read at forget rows only, from S `sums` [R] and answer `lengths`
        [R] in tokens."""
