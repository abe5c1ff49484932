"""The key fact of an answer: the words without which a text does not say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from lethe.data.template import Row
from lethe.evaluation.metrics import words


class Facts:
    """Key facts of forget rows. `retained` are answers that every model may know."""

    def __init__(self, retained: Sequence[str]) -> None:
        self._retained = retained

    def of(self, row: Row) -> frozenset[str]:
        """Return the words of the row's key fact, at least one for an answer that has any.

        Of the answer's words those that the question has not; of these those of the paraphrased answer; of these those
        of no wrong answer, or, where the row has none, those that the fewest retain answers have. A step that would
        leave nothing is left out.
        """
        found = _words(row.answer)
        found = found - _words(row.question) or found
        if row.paraphrased_answer:
            found = found & _words(row.paraphrased_answer) or found
        if row.perturbed_answers:
            return found - _words(*row.perturbed_answers) or found
        fewest = min((self._counts[word] for word in found), default=0)
        return frozenset(word for word in found if self._counts[word] == fewest)

    @cached_property
    def _counts(self) -> Counter[str]:
        """Number of retain answers that have each word."""
        return Counter(word for answer in self._retained for word in _words(answer))


def says(text: str, fact: frozenset[str]) -> bool:
    """Return whether `text` has every word of `fact`; False for a fact without words."""
    return bool(fact) and fact <= _words(text)


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in words(text, "symbols", stemmed=False))
