"""Likelihoods of whole texts, which may be longer than what a model reads at once: every token is scored once."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Texts [n] as token ids: windows, and `owners` [windows], the number of the text that each belongs to."""

    texts: tuple[str, ...]
    windows: tuple[Encoded, ...]
    owners: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], template: Template, length: int) -> Texts:
        """Tokenise `texts` in windows of at most `length` tokens."""
        parts = [text_windows(text, template, length) for text in texts]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
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
    by_text: list[list[tuple[np.ndarray, ...]]] = [[] for _ in texts.texts]
    for owner, part in zip(texts.owners, parts, strict=True):
        by_text[owner].append(part)
    # A text without a token to score has no windows.
    empty = np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64), np.empty(0)
    columns = [[np.concatenate(values) for values in zip(*(windows or [empty]), strict=True)] for windows in by_text]
    return LikelihoodScores(*map(list, zip(*columns, strict=True)))
