"""Membership inference: can one tell from the model that a row was among its training data?

A signal is one number a row, the lower the likelier it was. The attack's strength is the AUC with forget rows as
members against holdout rows, which no model has seen: .5 is blind, 1 is certain.
    loss                 mean token NLL (Yeom et al. 2018, arXiv 1709.01604)
    zlib                 loss / bytes of the answer, compressed (Carlini et al. 2021, arXiv 2012.07805)
    min_k                minus the mean of the least likely 40 % of log-probabilities (Shi et al. 2024, arXiv 2310.16789)
    min_k_plus_plus      the same of standardised log-probabilities (Zhang et al. 2025, arXiv 2404.02936)
    gradnorm             see `lethe.evaluation.gradients`
    reference            loss - the oracle's loss, see `lethe.evaluation.oracle`
Min-K leaves out the end of sequence, the others have it. As in the public implementation of TOFU's authors.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lethe.evaluation.metrics import auc, losses

if TYPE_CHECKING:
    from lethe.evaluation.scoring import Scores

MIN_K = 0.4  # share of an answer's least likely tokens


def signals(scores: Scores, rows: Iterable[int], answers: Sequence[str]) -> dict[str, np.ndarray]:
    """Each signal of these pairs [n], from `scores` alone; never NaN."""
    rows = list(rows)
    loss = losses(scores.nll_mean[rows])
    return {
        "loss": loss,
        "zlib": loss / np.array([len(zlib.compress(text.encode())) for text in answers], dtype=np.float64),
        "min_k": -min_k([scores.logp[i][:-1] for i in rows]),
        "min_k_plus_plus": -min_k([scores.standard[i][:-1] for i in rows]),
    }


def min_k(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of each row's lowest `MIN_K`, at least of one [n]; minus infinity for what is no number or empty."""
    lengths = np.array([len(row) for row in values])
    table = np.full((len(values), max(1, lengths.max(initial=0))), np.inf)
    table[np.arange(table.shape[1]) < lengths[:, None]] = losses(np.concatenate(values))
    table.sort(1)
    taken = np.maximum(1, (lengths * MIN_K).astype(np.int64))
    mean = table.cumsum(1)[np.arange(len(values)), taken - 1] / taken
    return np.where(mean < np.inf, mean, -np.inf)


def membership(members: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`mia_<signal>` of every signal that both have."""
    return {f"mia_{name}": auc(-members[name], -others[name]) for name in members if name in others}
