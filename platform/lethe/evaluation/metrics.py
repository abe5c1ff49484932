"""The exact two-sample Kolmogorov-Smirnov test, also where p underflows.

ROUGE-L recall, as the `rouge-score` package defines it, without its quadratic table in Python.

Lin 2004 (ROUGE); the subsequence in bit-parallel form, Hyyrö 2004. Words and stems come from `rouge-score`.

Unlearning metrics on arrays of losses: numpy in, numbers out.

Losses are mean token negative log-likelihoods in nats: `answer`, `paraphrase` [n] and `perturbed`, one array per
row. A loss that is not a number counts as infinite, so a broken model gets the worst finite score and never an
exception. TOFU: Maini et al. 2024, arXiv 2401.06121; extraction strength: Carlini et al. 2021, arXiv 2012.07805;
exact memorisation: Tirumala et al. 2022, arXiv 2205.10770.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer


class KsResult(NamedTuple):
    """`statistic`: D, the largest gap between the two empirical distributions; `p`: P(D or more), exact."""

    statistic: float
    p: float
    log10_p: float


def ks_test(a: np.ndarray, b: np.ndarray) -> KsResult:
    """Two-sided test that `a` [m] and `b` [n] are draws from one distribution (Hodges 1958).

    p is scipy's `ks_2samp(method="exact")`, which gives up or underflows where log10_p here stays right.
    NaN ranks above every number: a model that gives no number differs from one that does.
    """
    m, n = len(a), len(b)
    gap = _largest_gap(a, b)
    log_p = _log_tail(m, n, gap)
    return KsResult(gap / (m * n), float(np.exp(log_p)), float(log_p / np.log(10)))


def _largest_gap(a: np.ndarray, b: np.ndarray) -> int:
    """M n D, an integer: max over values v of |n #(a <= v) - m #(b <= v)|."""
    a, b = (np.sort(np.where(np.isnan(x), np.inf, x)) for x in (a, b))
    pooled = np.concatenate([a, b])
    counts = (np.searchsorted(x, pooled, "right") for x in (a, b))
    in_a, in_b = counts
    return int(np.abs(in_a * len(b) - in_b * len(a)).max())


def _log_tail(m: int, n: int, gap: int) -> float:
    """Ln P(a random lattice path from (0, 0) to (m, n) meets |n i - m j| >= gap).

    Under the null every order of the pooled sample is equally likely, so from (i, j) the next draw is of the
    first sample with probability (m - i) / (m + n - i - j). Backwards over antidiagonals, all terms positive:
    nothing cancels, and logarithms cannot underflow.
    """
    i = np.arange(m + 1)
    with np.errstate(divide="ignore"):
        log_i, log_j = np.log(m - i), np.log(np.arange(n + 1))
    tail = np.full(m + 2, -np.inf)  # at i + j = m + n the path has ended; tail[m + 1] pads the step to i = m + 1
    for total in range(m + n - 1, -1, -1):
        low, high = max(0, total - n), min(m, total)
        j = total - i[low : high + 1]
        step_i, step_j = log_i[low : high + 1] + tail[low + 1 : high + 2], log_j[n - j] + tail[low : high + 1]
        inside = np.logaddexp(step_i, step_j) - np.log(m + n - total)
        tail[low : high + 1] = np.where(np.abs(n * i[low : high + 1] - m * j) >= gap, 0.0, inside)
        tail[high + 1 :] = -np.inf
    return min(0.0, float(tail[0]))


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
