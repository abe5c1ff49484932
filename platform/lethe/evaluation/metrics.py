"""Unlearning metrics on arrays of losses: numpy in, numbers out.

Losses are mean token negative log-likelihoods in nats: `answer`, `paraphrase` [n] and `perturbed`, one array per
row. A loss that is not a number counts as infinite, so a broken model gets the worst finite score and never an
exception. TOFU: Maini et al. 2024, arXiv 2401.06121; extraction strength: Carlini et al. 2021, arXiv 2012.07805;
exact memorisation: Tirumala et al. 2022, arXiv 2205.10770.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Array = np.ndarray


def losses(values: Iterable[float]) -> Array:
    """float64 [n], with infinity in place of NaN."""
    array = np.array(values, dtype=np.float64)
    array[np.isnan(array)] = np.inf
    return array


def probability(answer: Array) -> Array:
    """exp(-loss) [n]: the answer's probability, normalised by its length."""
    return np.exp(-losses(answer))


def option_probability(answer: Array, perturbed: Sequence[Array]) -> Array:
    """The answer's share of the probability of all options [n]; 0 where every option is impossible."""
    log_share = np.empty(len(perturbed))
    for row, (right, wrong) in enumerate(zip(losses(answer), perturbed, strict=True)):
        everything = np.logaddexp.reduce(-np.append(losses(wrong), right))
        log_share[row] = -np.inf if np.isneginf(everything) else -right - everything
    return np.exp(log_share)


def truth_ratio(paraphrase: Array, perturbed: Sequence[Array]) -> Array:
    """R = exp(paraphrase - mean(perturbed)) [n], a ratio of geometric means; NaN where both are impossible.

    Real authors and world facts have no paraphrase: give the answer's loss in its place.
    """
    sizes = np.array([len(row) for row in perturbed])
    row = np.repeat(np.arange(len(sizes)), sizes)
    mean = np.bincount(row, weights=losses(np.concatenate([*perturbed, np.empty(0)])), minlength=len(sizes)) / sizes
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(losses(paraphrase) - mean)


def truth_score(ratio: Array) -> Array:
    """max(0, 1 - R) [n]: off the forget set, how much likelier truth is than the perturbed answers."""
    return np.where(ratio < 1, 1 - ratio, 0.0)


def forget_truth_score(ratio: Array) -> Array:
    """min(R, 1/R) [n]: on the forget set, 1 where truth and the perturbed answers are equally likely."""
    with np.errstate(divide="ignore"):
        return np.nan_to_num(np.minimum(ratio, 1 / ratio), nan=0.0)


def harmonic_mean(values: Iterable[float]) -> float:
    """Model utility: the harmonic mean of its components; any zero (or NaN) makes it 0."""
    array = np.array(list(values), dtype=np.float64)
    if array.size == 0 or not (array > 0).all():
        return 0.0
    return float(array.size / (1 / array).sum())


def exact_memorization(correct: Sequence[Array]) -> Array:
    """Share of answer tokens that are the argmax [n]; `correct` has no end-of-sequence; 0 for an empty answer."""
    return np.array([row.mean() if len(row) else 0.0 for row in correct])


def extraction_strength(correct: Sequence[Array]) -> Array:
    """1 - k/n [n], k the shortest prefix after which teacher-forced argmax gives the rest; 0 if none does."""
    return np.array([_right_suffix(row) / len(row) if len(row) else 0.0 for row in correct])


def _right_suffix(row: Array) -> int:
    """How many tokens at the end are all correct."""
    wrong = np.flatnonzero(~row)
    return len(row) - 1 - int(wrong[-1]) if wrong.size else len(row)


def auc(members: Array, others: Array) -> float:
    """Probability that a member's score exceeds another's, ties half: the area under the ROC curve."""
    order = np.sort(others)
    below, through = np.searchsorted(order, members, "left"), np.searchsorted(order, members, "right")
    return float((below + through).mean() / (2 * len(order)))
