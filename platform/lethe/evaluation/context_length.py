"""Whether a model can read the rows at all: told before the first forward pass, never by cutting rows off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from lethe.data.template import Encoded
from lethe.errors import UserError
from torch import nn

NAMED = 3  # of the rows that are too long


@dataclass(frozen=True)
class ContextLimits:
    """What a model reads: token ids below `vocabulary`, at most `context` of them (None: any number)."""

    name: str
    vocabulary: int
    context: int | None

    @classmethod
    def of_config(cls, config: Any, name: str) -> Self:
        """From transformers' configuration of a model that has not been loaded."""
        text = config.get_text_config(decoder=True)
        return cls(name, text.vocab_size, getattr(text, "max_position_embeddings", None))

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Of a loaded model, perhaps wrapped: as many ids as its embedding has rows."""
        limits = cls.of_config(model.config, "the model")
        return cls(limits.name, model.get_input_embeddings().num_embeddings, limits.context)


def check_context_length(rows: Iterable[tuple[str, Encoded]], limits: ContextLimits, *, least: int = 2) -> None:
    """Raises BadInput for an answer without tokens, a token that the model does not have, and rows beyond its context.

    `rows`: names and token ids. `least`: scored tokens of an answer that has one, the end of sequence among them.
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
        more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
        raise UserError(
            f"{len(long)} of {total} rows are longer than the {limits.context} tokens that {limits.name} takes: "
            f"{', '.join(long[:NAMED])}{more}: shorten them, or take a model with a longer context"
        )
