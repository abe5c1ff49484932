"""What an objective receives and returns. Units: nats; every sum is over answer tokens only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lethe.config.objective import Objective


@dataclass(frozen=True, slots=True)
class Counts:
    """Global normalisers of one optimizer step: summed over ranks and micro-batches.

    A mean of per-rank means would weigh a rank with few tokens as much as one with many.
    """

    forget_tokens: int
    retain_tokens: int
    forget_rows: int


@dataclass(slots=True)
class Scored:
    """What one forward over concatenated forget and retain rows gives, at scored positions only.

    `logits` [N, V] any float type, with grad, already aligned so that `labels[n]` is the token that
    `logits[n]` predicts; `labels` [N] int64; `row` [N] int64 in [0, R), the row of each position;
    `is_forget` [R] bool; `reference` [R] float32, S0: the row's summed answer log-probability under
    the frozen start model, 0 where no objective reads it. N and R may be 0.
    """

    logits: Tensor
    labels: Tensor
    row: Tensor
    is_forget: Tensor
    reference: Tensor


class Loss(ABC):
    """L = L_forget + gamma * L_retain, as one micro-batch's share of the global value.

    A share is this micro-batch's sum divided by the global count, so shares add up over ranks and
    micro-batches to the loss of the whole step (the engine undoes its own averaging). A micro-batch
    without a scored position has share 0 and can still be back-propagated.
    """

    name: ClassVar[str]
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: Objective) -> None:
        self.gamma = config.gamma

    def __call__(self, scored: Scored, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to back-propagate, and detached shares `forget_loss` and `retain_loss` (before gamma)."""
        forget, retain = self.shares(scored, counts)
        return forget + self.gamma * retain, {"forget_loss": forget.detach(), "retain_loss": retain.detach()}

    @abstractmethod
    def shares(self, scored: Scored, counts: Counts) -> tuple[Tensor, Tensor]:
        """The forget term's and the retain term's share, both fp32 scalars on the graph of `logits`."""
