"""Checking, before the first forward pass, that a model can read all rows: they are never truncated in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from lethe.data.template import Encoded
from lethe.data.windows import rows_beyond
from lethe.errors import UserError
from lethe.evaluation.causal_lm import base_model

BEYOND = " before its rotary embedding changes with the length of the longest row in a batch"


@dataclass(frozen=True)
class ContextLimits:
    """The inputs that a model takes: token ids below `vocabulary`, at most `context` of them (None: any number), for
    the reason `limit` where it is not the model's size. `name` is what error messages call the model."""

    name: str
    vocabulary: int
    context: int | None
    limit: str = ""

    @classmethod
    def of_config(cls, config: Any, name: str) -> Self:
        """Return the limits of a model that has not been loaded, by transformers' configuration of it."""
        text = config.get_text_config(decoder=True)
        context = context_of(text)
        changes = context is not None and context < (getattr(text, "max_position_embeddings", None) or 0)
        return cls(name, text.vocab_size, context, BEYOND if changes else "")

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Return the limits of a loaded model, which may be wrapped by peft; `vocabulary` is the number of rows of its
        embedding."""
        base = base_model(model)
        limits = cls.of_config(base.config, "the model")
        embedding: Any = base.get_input_embeddings()
        return cls(limits.name, embedding.num_embeddings, limits.context, limits.limit)


def context_of(config: Any) -> int | None:
    """Return how many tokens a model reads, by its text configuration; None: any number.

    A rotary embedding of the kind longrope has other frequencies as soon as one row of a batch is longer than the
    original context: what a row gets would depend on its neighbours, so only the original context counts. (The kind
    dynamic changes beyond `max_position_embeddings`.)
    """
    rope = getattr(config, "rope_parameters", None) or {}
    # One set of parameters, or one for each kind of layer.
    parts = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    changing = [part.get("original_max_position_embeddings") for part in parts if part.get("rope_type") == "longrope"]
    lengths = [*(getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")), *changing]
    return min((int(length) for length in lengths if length), default=None)


def check_context_length(rows: Iterable[tuple[str, Encoded]], limits: ContextLimits, *, least: int = 2) -> None:
    """Raise UserError for a row whose answer has fewer than `least` scored tokens, for a token id that the model does
    not have, and for rows longer than its context.

    `rows`: pairs of a name for messages and the row. An answer that has tokens has at least two, one of them the end of
    sequence.
    """
    rows = [*rows]
    for name, row in rows:
        if len(row.ids) - row.prompt_length < least:
            raise UserError(f"{name}: the answer has no tokens: the tokenizer makes nothing of it")
        if max(row.ids) >= limits.vocabulary:
            raise UserError(
                f"{name}: token id {max(row.ids)}, but {limits.name} has a vocabulary of {limits.vocabulary}: "
                "the tokenizer is not the model's"
            )
    found = rows_beyond(rows, limits.context)
    if found.longer:
        takes = f"the {limits.context} tokens that {limits.name} takes{limits.limit}"
        raise UserError(
            f"{len(found.longer)} of {found.rows} rows are longer than {takes}: {found}: shorten them, or take a model"
            " with a longer context"
        )
