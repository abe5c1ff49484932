"""TDEC's metrics from per-sequence values: docs/METHODS.md section 5; Cha et al. 2024, arXiv 2408.06621.

    forget  = max(MA / MA*, min(1, EL / EL*)), with MA* and EL* the start model's means on unseen text
    utility = harmonic mean of dialogue F1, choice accuracy and min(1, start perplexity / perplexity)

Forget below 1 is the papers' criterion, both means below their thresholds. Past its threshold EL does not count for
more, so that it need not be known while MA is above its own: that makes every evaluation but the last one cheap.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from lethe.benchmarks.base import ReferenceValues
from lethe.config.base import Frozen
from lethe.data.words import unicode_words
from lethe.evaluation.metrics import harmonic_mean

ARTICLES = frozenset({"a", "an", "the"})


class Thresholds(Frozen, ReferenceValues):
    """The start model's results on text that no model was trained on: mean MA, mean EL, perplexity."""

    memorization_accuracy: float
    extraction_likelihood: float
    perplexity: float

    def dump(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return self.model_dump()


def left_over(ma: float, el: float, thresholds: Thresholds) -> float:
    """Return the `forget` metric of mean memorisation accuracy `ma` and mean extraction likelihood `el`."""
    # A likelihood of 0 is not above a threshold of 0.
    share = el / thresholds.extraction_likelihood if thresholds.extraction_likelihood else float(el > 0)
    return max(ma / thresholds.memorization_accuracy, min(1.0, share))


def usefulness(values: dict[str, float], thresholds: Thresholds) -> float:
    """Return the `utility` metric from `perplexity` and those of `dialogue_f1` and `choice_accuracy` in `values`."""
    parts = [values[name] for name in ("dialogue_f1", "choice_accuracy") if name in values]
    return harmonic_mean([*parts, min(1.0, thresholds.perplexity / values["perplexity"])])


def word_f1(reference: str, candidate: str) -> float:
    """Return the harmonic mean of precision and recall of words, counted with multiplicity: of any script, lower case
    and without articles, as in ParlAI (Miller et al. 2017, arXiv 1705.06476), which Jang et al. use."""
    true, given = (Counter(w for w in unicode_words(t) if w not in ARTICLES) for t in (reference, candidate))
    common = (true & given).total()
    return 2 * common / (true.total() + given.total()) if common else 0.0
