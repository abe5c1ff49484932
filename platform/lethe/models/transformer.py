"""The shape of a decoder of the Llama family, and its tensors, parameters and FLOPs, which follow from it. No torch.

FLOPs are those that the model needs, not those that an implementation spends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from lethe.config.model import EmbeddedModel
from lethe.config.optimizer import ONE_BACKWARD, Passes
from lethe.errors import UserError

# Assumption, for a model of which only the number of parameters is known: Llama 2 (Touvron et al. 2023) has 128
# columns of width per layer from 7B (4096, 32) to 70B (8192, 80, with 8 key-value heads and a wider middle).
WIDTH_PER_LAYER, HEAD, VOCABULARY = 128, 128, 32_000
LIKE_LLAMA = ("llama", "mistral", "qwen2")  # biases and norms more or less: within a thousandth of the parameters


@dataclass(frozen=True)
class Transformer:
    """Sizes of a Llama: gated feed-forward of width `middle`, RMS norms, rotary positions; `tied`: head = embedding."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    middle: int
    vocabulary: int
    tied: bool = False

    @classmethod
    def of_embedded(cls, model: EmbeddedModel) -> Transformer:
        """Return the shape of an embedded model, whose embedding has `vocab_size` rows whatever its tokenizer needs."""
        h = model.heads
        return cls(model.hidden_size, model.layers, h, h, model.intermediate_size, model.vocab_size)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Transformer:
        """Return the shape of a model's config.json. Raises UserError for a family whose tensors are not known here."""
        kind = config.get("model_type")
        if kind not in LIKE_LLAMA:
            raise UserError(f"no memory model for model_type {kind}: choose from {', '.join(LIKE_LLAMA)}")
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            middle=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @classmethod
    def of_size(cls, parameters: float, vocabulary: int = VOCABULARY) -> Transformer:
        """Return the Llama of whole heads that is nearest to so many parameters; see the assumption above."""
        best = min(range(1, 513), key=lambda heads: abs(cls._of_heads(heads, vocabulary).parameters - parameters))
        return cls._of_heads(best, vocabulary)

    @classmethod
    def _of_heads(cls, heads: int, vocabulary: int) -> Transformer:
        hidden = heads * HEAD
        return cls(
            hidden, max(1, hidden // WIDTH_PER_LAYER), heads, heads, ceil(hidden * 8 / 3 / 256) * 256, vocabulary
        )

    @property
    def kv_width(self) -> int:
        """Columns of the keys; the values have as many."""
        return self.hidden // self.heads * self.kv_heads

    def linears(self) -> list[tuple[int, int]]:
        """Return (out, in) of one layer's matrices, in the model's order: q, k, v, o, gate, up, down."""
        h, kv, f = self.hidden, self.kv_width, self.middle
        return [(h, h), (kv, h), (kv, h), (h, h), (f, h), (f, h), (h, f)]

    def weights(self) -> list[int]:
        """Return the number of elements of every weight tensor, in the model's order."""
        layer = [rows * columns for rows, columns in self.linears()] + [self.hidden, self.hidden]
        embedding = self.vocabulary * self.hidden
        return [embedding, *(layer * self.layers), self.hidden, *([] if self.tied else [embedding])]

    def adapters(self, rank: int) -> list[int]:
        """Return the number of elements of each LoRA matrix, A [rank, in] and B [out, rank], of all linear layers but
        the head."""
        layer = [size for rows, columns in self.linears() for size in (rank * columns, rows * rank)]
        return layer * self.layers

    @property
    def parameters(self) -> int:
        """Number of weights of the model without adapters."""
        return sum(self.weights())

    @property
    def matrix_elements(self) -> int:
        """Number of weights of one layer's matrices."""
        return sum(rows * columns for rows, columns in self.linears())


@dataclass(frozen=True)
class BatchShape:
    """The sizes of a batch: `rows`, and `tokens` without padding, `padded` with it.

    `scored`: positions whose logits are computed; `squares`: the sum of the rows' squared lengths.
    """

    rows: int
    tokens: int
    scored: int
    squares: int
    padded: int

    @classmethod
    def uniform(cls, rows: int, length: int, scored: int | None = None) -> BatchShape:
        """Return a batch of rows of one length with `scored` positions each, by default all but the first."""
        scored_per_row = length - 1 if scored is None else scored
        return cls(rows, rows * length, rows * scored_per_row, rows * length**2, rows * length)


def forward_flops(shape: Transformer, batch: BatchShape) -> float:
    """Return the FLOPs of a forward, as Kaplan et al. 2020 count.

    They are a multiplication and an addition per weight and token, the head's at scored positions only; and for scores
    and values of attention 4 hidden T^2 per row and layer, the half that causality masks included.
    """
    body = 2.0 * shape.layers * shape.matrix_elements * batch.tokens
    head = 2.0 * shape.hidden * shape.vocabulary * batch.scored
    attention = 4.0 * shape.layers * shape.hidden * batch.squares
    return body + head + attention


def step_flops(
    shape: Transformer,
    batch: BatchShape,
    rank: int | None = None,
    *,
    checkpointing: bool = False,
    passes: Passes = ONE_BACKWARD,
) -> float:
    """Return the FLOPs of a step: of its `passes` forward, and forward and backward, with the second forward that
    `checkpointing` costs.

    A backward costs a forward for the gradients of the activations and another for those of the weights, which with a
    LoRA of this rank exist for its own matrices only.
    """
    forward = forward_flops(shape, batch)
    again = forward if checkpointing else 0.0
    if rank is None:
        return passes.forward * forward + passes.backward * (3.0 * forward + again)
    adapters = 2.0 * sum(shape.adapters(rank)) * batch.tokens
    attention = 4.0 * shape.layers * shape.hidden * batch.squares
    # Of attention both factors are activations: its backward is two forwards even where no weight is trained.
    trained = 2.0 * forward + attention + 3.0 * adapters + again
    return passes.forward * (forward + adapters) + passes.backward * trained


def newton_schulz_flops(shape: Transformer, rank: int | None, iterations: int) -> float:
    """Return the FLOPs with which Muon orthogonalises all layers' matrices, or their LoRA factors of this rank, in one
    step: of m x n, m <= n, 4 m^2 n + 2 m^3 an iteration. They do not depend on the batch; every rank spends them."""
    linears = shape.linears()
    if rank is not None:
        linears = [factor for rows, columns in linears for factor in ((rank, columns), (rows, rank))]
    sides = [(min(pair), max(pair)) for pair in linears]
    return float(iterations * shape.layers * sum(4 * m * m * n + 2 * m**3 for m, n in sides))
