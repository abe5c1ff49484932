"""TOFU's metrics from per-row losses and ROUGE: METHODS section 4; Maini et al. 2024, arXiv 2401.06121."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lethe.evaluation import metrics
from lethe.evaluation.ks import ks

OPTIONS = ("real_authors", "world_facts")  # probability is the answer's share of its options
UTILITY = ("retain", *OPTIONS)


@dataclass(frozen=True)
class SplitScores:
    """One split's rows: mean token losses (nats) and ROUGE-L recall [n]; `perturbed`: one array per row.

    A row without a paraphrase has its answer's loss there.
    """

    answer: np.ndarray
    paraphrase: np.ndarray
    perturbed: Sequence[np.ndarray]
    rouge: np.ndarray

    def probability(self, options: bool) -> np.ndarray:
        """Of the answer [n], alone or among its options."""
        if options:
            return metrics.option_probability(self.answer, self.perturbed)
        return metrics.probability(self.answer)

    @cached_property
    def truth_ratio(self) -> np.ndarray:
        """R [n]."""
        return metrics.truth_ratio(self.paraphrase, self.perturbed)


def split_metrics(name: str, scores: SplitScores) -> dict[str, float]:
    """Mean probability, ROUGE and truth-ratio score of one split, as `NAME_probability` and so on."""
    score = metrics.forget_truth_score if name == "forget" else metrics.truth_score
    return {
        f"{name}_probability": float(scores.probability(name in OPTIONS).mean()),
        f"{name}_rouge": float(np.mean(scores.rouge)),
        f"{name}_truth_ratio": float(score(scores.truth_ratio).mean()),
    }


def model_utility(values: dict[str, float]) -> float:
    """Harmonic mean of probability, ROUGE and truth ratio over all splits off the forget set that `values` has."""
    kinds = ("probability", "rouge", "truth_ratio")
    names = [f"{split}_{kind}" for split in UTILITY for kind in kinds]
    return metrics.harmonic_mean(values[name] for name in names if name in values)


def forget_quality(ratio: np.ndarray, oracle_ratio: np.ndarray) -> dict[str, float]:
    """Truth ratios of forget rows against the oracle's: the KS distance as `forget`, p and log10 p."""
    test = ks(ratio, oracle_ratio)
    return {
        "forget": test.statistic,
        "forget_quality": test.p,
        "forget_quality_log10": test.log10_p,
    }
