"""The shape of a decoder of the Llama family, and what follows from it alone: tensors, parameters, FLOPs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from lethe.config.model import EmbeddedModel
from lethe.errors import BadInput

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
        """The embedded family's; its tokenizer may turn out smaller, its embedding does not."""
        h = model.heads
        return cls(model.hidden_size, model.layers, h, h, model.intermediate_size, model.vocab_size)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Transformer:
        """From a config.json. Raises BadInput for a family whose tensors are not known here."""
        kind = config.get("model_type")
        if kind not in LIKE_LLAMA:
            raise BadInput(f"no memory model for model_type {kind}: choose from {', '.join(LIKE_LLAMA)}")
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
        """A Llama of about this size, its width in whole heads; see the assumption above."""
        best = min(range(1, 513), key=lambda heads: abs(cls._of_heads(heads, vocabulary).parameters - parameters))
        return cls._of_heads(best, vocabulary)

    @classmethod
    def _of_heads(cls, heads: int, vocabulary: int) -> Transformer:
        hidden = heads * HEAD
        return cls(hidden, max(1, hidden // WIDTH_PER_LAYER), heads, heads, ceil(hidden * 8 / 3 / 256) * 256, vocabulary)

    @property
    def kv_width(self) -> int:
        """Columns of keys, and of values."""
        return self.hidden // self.heads * self.kv_heads

    def linears(self) -> list[tuple[int, int]]:
        """[out, in] of one layer's matrices, in the model's order: q, k, v, o, gate, up, down."""
        h, kv, f = self.hidden, self.kv_width, self.middle
        return [(h, h), (kv, h), (kv, h), (h, h), (f, h), (f, h), (h, f)]

    def weights(self) -> list[int]:
        """Elements of every weight tensor of the model, in its order."""
        layer = [rows * columns for rows, columns in self.linears()] + [self.hidden, self.hidden]
        embedding = self.vocabulary * self.hidden
        return [embedding, *(layer * self.layers), self.hidden, *([] if self.tied else [embedding])]

    def adapters(self, rank: int) -> list[int]:
        """Elements of the LoRA matrices A [rank, in] and B [out, rank] of all linear layers but the head."""
        layer = [size for rows, columns in self.linears() for size in (rank * columns, rows * rank)]
        return layer * self.layers

    @property
    def parameters(self) -> int:
        """Of the model without adapters."""
        return sum(self.weights())

    @property
    def matrix_elements(self) -> int:
        """Weights of one layer's matrices."""
        return sum(rows * columns for rows, columns in self.linears())
