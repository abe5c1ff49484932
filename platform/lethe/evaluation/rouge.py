"""ROUGE-L recall, as the `rouge-score` package defines it, without its quadratic table in Python.

Lin 2004 (ROUGE); the subsequence in bit-parallel form, Hyyrö 2004. Words and stems come from `rouge-score`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer


class _CachedStemmer:
    """The stemmer of `rouge-score`, which spends most of its time on words that come again."""

    def __init__(self, porter: PorterStemmer) -> None:
        self.stem = lru_cache(maxsize=2**16)(porter.stem)


@cache
def _stemmer() -> _CachedStemmer:
    from nltk.stem.porter import PorterStemmer  # slow to import, and only needed where answers are compared

    return _CachedStemmer(PorterStemmer())


def words(text: str) -> tuple[str, ...]:
    """Lower-case alphanumeric words; those of more than three letters stemmed."""
    from rouge_score.tokenize import tokenize

    return tuple(tokenize(text, _stemmer()))


_reference_words = lru_cache(maxsize=2**14)(words)  # the same in every trial of a study


def rouge_l_recall(reference: str, candidate: str) -> float:
    """Longest common subsequence over the reference's length, in [0, 1]; 0 where either has no words."""
    target = _reference_words(reference)
    return common_subsequence(target, words(candidate)) / len(target) if target else 0.0


def common_subsequence(target: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence. One bit per word of `target`; a zero bit is a match found."""
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(target):
        places[word] |= 1 << place
    full = row = (1 << len(target)) - 1
    for word in other:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(target) - row.bit_count()
