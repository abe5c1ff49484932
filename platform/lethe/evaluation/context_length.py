"""Checking, before the first forward pass, that a model can read all rows: they are never truncated in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.evaluation.causal_lm import base_model

ROWS_NAMED = 3  # of the rows that are too long


@dataclass(frozen=True)
class ContextLimits:
    """The inputs that a model takes: token ids below `vocabulary`, at most `context` of them (None: any number).
    `name` is what error messages call the model."""

    name: str
    vocabulary: int
    context: int | None

    @classmethod
    def of_config(cls, config: Any, name: str) -> Self:
        """Return the limits of a model that has not been loaded, by transformers' configuration of it."""
        text = config.get_text_config(decoder=True)
        return cls(name, text.vocab_size, getattr(text, "max_position_embeddings", None))

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Return the limits of a loaded model, which may be wrapped by peft; `vocabulary` is the number of rows of its
        embedding."""
        base = base_model(model)
        limits = cls.of_config(base.config, "the model")
        embedding: Any = base.get_input_embeddings()
        return cls(limits.name, embedding.num_embeddings, limits.context)


def check_context_length(rows: Iterable[tuple[str, Encoded]], limits: ContextLimits, *, least: int = 2) -> None:
    """Raise UserError for a row whose answer has fewer than `least` scored tokens, for a token id that the model does
    not have, and for rows longer than its context.

    `rows`: pairs of a name for messages and the row. An answer that has tokens has at least two, one of them the end of
    sequence.
    """
    long, total = [], 0
    for name, row in rows:
        total += 1
        if len(row.ids) - row.prompt_length < least:
            raise UserError(f"{name}: the answer has no tokens: the tokenizer makes nothing of it")
        if max(row.ids) >= limits.vocabulary:
            raise UserError(
                f"{name}: token id {max(row.ids)}, but {limits.name} has a vocabulary of {limits.vocabulary}: "
                "the tokenizer is not the model's"
            )
        if limits.context is not None and len(row.ids) > limits.context:
            long.append(f"{name} ({len(row.ids)})")
    if long:
        more = f" and {len(long) - ROWS_NAMED} more" if len(long) > ROWS_NAMED else ""
        raise UserError(
            f"{len(long)} of {total} rows are longer than the {limits.context} tokens that {limits.name} takes: "
            f"{', '.join(long[:ROWS_NAMED])}{more}: shorten them, or take a model with a longer context"
        )
