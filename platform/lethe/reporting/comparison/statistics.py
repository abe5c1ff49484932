"""Tests and intervals over few seeds: paired t tests, Holm's correction, bootstrap means (docs/METHODS.md 6a)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lethe.search.pareto import Floats

ALPHA = 0.05
SAME = 0.05  # a difference within it, with its whole interval, is none
FEWEST_SEEDS = 3
REPLICATES = 10_000
STRIDE = 7919  # prime: a seed that is drawn twice in one replicate gives two different entries of its pool

Verdict = Literal["better", "worse", "equal", "undecided"]


@dataclass(frozen=True)
class Evidence:
    """What stands behind a verdict: the interval of the mean difference, and p before and after the correction."""

    low: float
    high: float
    p: float
    corrected: float

    def verdict(self, gain: float) -> Verdict:
        """Return the verdict on a mean difference whose sign is turned so that more is better."""
        if self.corrected < ALPHA:
            return "better" if gain > 0 else "worse"
        return "equal" if self.low >= -SAME and self.high <= SAME else "undecided"


def paired_t(differences: Sequence[float]) -> float:
    """Return p of the two-sided paired t test, one difference a seed: 1 where all are 0, 0 where all are the same other
    number; NaN of fewer than two."""
    from scipy.special import stdtr  # the distribution alone: scipy.stats takes a second to import

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return math.nan
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(len(values) - 1, -abs(mean) / (spread / math.sqrt(len(values)))))


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's corrected p of each test: the k-th smallest times the tests that are not smaller, never below the
    one before it and at most 1."""
    corrected = [0.0] * len(ps)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, ps[index] * (len(ps) - place)))
        corrected[index] = largest
    return corrected


def bootstrap_interval(pools: Floats, replicates: int = REPLICATES) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the mean over seeds: percentiles of bootstrap means.

    `pools` [seeds, entries]: differences of each seed with its trials drawn anew. A replicate draws seeds with
    replacement and an entry of each. The draws depend on the shape of `pools` alone, so pairs with the same seeds are
    drawn together.
    """
    seeds, entries = pools.shape
    drawn = np.random.default_rng(0).integers(seeds, size=(replicates, seeds))
    entry = (np.arange(replicates)[:, None] + STRIDE * np.arange(seeds)) % entries
    low, high = np.quantile(pools[drawn, entry].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
