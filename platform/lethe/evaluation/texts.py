"""Likelihoods of whole texts, which may be longer than what a model reads at once: every token is scored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from lethe.data.source_rows import Document
from lethe.data.template import Encoded, Template
from lethe.data.windows import encode_row
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.likelihood import LikelihoodScores, score

OVERLAP = 1  # tokens that a window shares with the one before, so that its first token is predicted from something


@dataclass(frozen=True)
class Texts:
    """Texts [n] as token ids: windows, at least one for each, and `rows` [n], index arrays of each text's windows."""

    texts: tuple[str, ...]
    windows: tuple[Encoded, ...]
    rows: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, texts: Sequence[str], template: Template, length: int) -> Texts:
        """Tokenise `texts` in windows of at most `length` tokens. Raises UserError for one without a token to score."""
        parts = windows_of(texts, template, length)
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        rows = tuple(np.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True))
        return cls(tuple(texts), tuple(window for part in parts for window in part), rows)

    def named(self, part: str) -> Iterator[tuple[str, Encoded]]:
        """Yield every window with the name of its row in the `part`."""
        for number, indices in enumerate(self.rows, 1):
            yield from ((f"row {number} of {part}", self.windows[i]) for i in indices)


def windows_of(texts: Sequence[str], template: Template, length: int) -> list[list[Encoded]]:
    """Return the windows of each text, of at most `length` tokens. Raises UserError for a text without a token to
    score, by its number."""
    rows = (Document(text, f"text {number} of {len(texts)}") for number, text in enumerate(texts, 1))
    return [encode_row(row, template, length, OVERLAP) for row in rows]


def score_texts(
    model: nn.Module,
    texts: Texts,
    template: Template,
    token_budget: int,
    shard: RankShard,
    *,
    standardised: bool = True,
) -> LikelihoodScores:
    """Score every token of each text [n], on all ranks alike; `standardised` as in `score`. Put the model in eval mode
    first."""

    def scored(windows: Sequence[Encoded]) -> list[tuple[np.ndarray, ...]]:
        wanted = [standardised] * len(windows)
        found = score(model, windows, pad=template.pad, token_budget=token_budget, standardised=wanted)
        return list(zip(found.logp, found.correct, found.guess, found.standard, strict=True))

    parts = shard.map(texts.windows, scored)
    scores = LikelihoodScores(*map(list, zip(*parts, strict=True)))
    return joined(scores, texts.rows)


def joined(scores: LikelihoodScores, rows: Sequence[np.ndarray]) -> LikelihoodScores:
    """Return the scores of `rows`, index arrays of the pairs that make up a row each, as if each were one pair."""
    fields = (scores.logp, scores.correct, scores.guess, scores.standard)
    return LikelihoodScores(*([np.concatenate([values[i] for i in row]) for row in rows] for values in fields))
