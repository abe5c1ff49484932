"""Likelihoods of whole texts, which may be longer than what a model reads at once: every token is scored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from lethe.data.source_rows import Document
from lethe.data.template import Encoded, Template
from lethe.data.windows import encode_row
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.likelihood import LikelihoodScores, score

OVERLAP = 1  # tokens that a window shares with the one before, so that its first token is predicted from something


@dataclass(frozen=True)
class Texts:
    """Texts [n] as token ids: windows, at least one for each, and `owners` [windows], the numbers of their texts."""

    texts: tuple[str, ...]
    windows: tuple[Encoded, ...]
    owners: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], template: Template, length: int) -> Texts:
        """Tokenise `texts` in windows of at most `length` tokens. Raises UserError for one without a token to score."""
        parts = [text_windows(text, template, length) for text in texts]
        if (short := next((number for number, part in enumerate(parts, 1) if not part), None)) is not None:
            raise UserError(f"text {short} of {len(texts)} has no token to score: it needs two")
        owners = np.array([number for number, part in enumerate(parts) for _ in part], dtype=np.int64)
        return cls(tuple(texts), tuple(window for part in parts for window in part), owners)


def text_windows(text: str, template: Template, length: int) -> list[Encoded]:
    """Return the windows of a text, each of at most `length` tokens."""
    return encode_row(Document(text), template, length, OVERLAP)


def score_texts(
    model: nn.Module, texts: Texts, template: Template, token_budget: int, shard: RankShard
) -> LikelihoodScores:
    """Score every token of each text [n], on all ranks alike. Put the model in eval mode first."""

    def scored(windows: Sequence[Encoded]) -> list[tuple[np.ndarray, ...]]:
        wanted = [True] * len(windows)
        found = score(model, windows, pad=template.pad, token_budget=token_budget, standardised=wanted)
        return list(zip(found.logp, found.correct, found.guess, found.standard, strict=True))

    parts = shard.map(texts.windows, scored)
    scores = LikelihoodScores(*map(list, zip(*parts, strict=True)))
    return joined(scores, [np.flatnonzero(texts.owners == number) for number in range(len(texts.texts))])


def joined(scores: LikelihoodScores, rows: Sequence[np.ndarray]) -> LikelihoodScores:
    """Return the scores of `rows`, index arrays of the pairs that make up a row each, as if each were one pair."""
    fields = (scores.logp, scores.correct, scores.guess, scores.standard)
    return LikelihoodScores(*([np.concatenate([values[i] for i in row]) for row in rows] for values in fields))
