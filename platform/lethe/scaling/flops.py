"""FLOPs of one optimizer step: what the model needs, not what an implementation spends."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.scaling.transformer import Transformer


@dataclass(frozen=True)
class Batch:
    """What one optimizer step puts through the model, over all ranks: rows as long as they are, padding apart.

    `scored`: positions whose logits are computed; `squares`: the sum of the rows' squared lengths.
    """

    rows: int
    tokens: int
    scored: int
    squares: int
    padded: int

    @classmethod
    def uniform(cls, rows: int, length: int, scored: int | None = None) -> Batch:
        """Rows of one length; `scored` positions in each, by default all but the first."""
        each = length - 1 if scored is None else scored
        return cls(rows, rows * length, rows * each, rows * length**2, rows * length)


def forward_flops(shape: Transformer, batch: Batch) -> float:
    """A multiplication and an addition per weight and token, the head's at scored positions only; scores and values of
    attention are 4 hidden T^2 per row and layer, with the half that causality masks, as Kaplan et al. 2020 count."""
    body = 2.0 * shape.layers * shape.matrix_elements * batch.tokens
    head = 2.0 * shape.hidden * shape.vocabulary * batch.scored
    attention = 4.0 * shape.layers * shape.hidden * batch.squares
    return body + head + attention


def step_flops(shape: Transformer, batch: Batch, rank: int | None = None) -> float:
    """Forward and backward of a step. A backward costs a forward for the gradients of the activations and another for
    those of the weights, which a LoRA of this rank has for its own matrices only."""
    forward = forward_flops(shape, batch)
    if rank is None:
        return 3.0 * forward
    adapters = 2.0 * sum(shape.adapters(rank)) * batch.tokens
    attention = 4.0 * shape.layers * shape.hidden * batch.squares
    # Of attention both factors are activations: its backward is two forwards even where no weight is trained.
    return 2.0 * forward + attention + 3.0 * adapters
