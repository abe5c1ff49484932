"""Metrics in plain numpy: TOFU's, ROUGE-L, the Kolmogorov-Smirnov test, memorisation, AUC.

Losses are mean token negative log-likelihoods in nats: `answer` and `paraphrase` are [n], `perturbed` is one array per
row. A loss that is NaN counts as infinite, so that a broken model gets the worst finite score and never an exception.

TOFU: Maini et al. 2024, arXiv 2401.06121; extraction strength: Carlini et al. 2021, arXiv 2012.07805; exact
memorisation: Tirumala et al. 2022, arXiv 2205.10770; ROUGE: Lin 2004, as the `rouge-score` package defines it, with the
longest common subsequence in bit-parallel form (Hyyrö 2004).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from lethe.config.run import RougeRule
from lethe.data.words import is_latin, symbols_and_words, unicode_words
from lethe.evaluation.stemmer import porter_stemmer

Array = np.ndarray
LARGEST_LOSS = 700.0  # exp of it is still a float


class KsResult(NamedTuple):
    """`statistic`: D, the largest gap between the two empirical distributions; `p`: P(D or more), exact, and its
    decimal logarithm, which does not underflow."""

    statistic: float
    p: float
    log10_p: float


def ks_test(a: np.ndarray, b: np.ndarray) -> KsResult:
    """Test two-sided whether `a` [m] and `b` [n] are draws from one distribution (Hodges 1958).

    `p` is that of scipy's `ks_2samp(method="exact")`, which gives up or underflows where `log10_p` here stays right.
    NaN ranks above every number: a model that gives no number differs from one that does.
    """
    m, n = len(a), len(b)
    gap = _largest_gap(a, b)
    log_p = _log_tail(m, n, gap)
    return KsResult(gap / (m * n), float(np.exp(log_p)), float(log_p / np.log(10)))


def _largest_gap(a: np.ndarray, b: np.ndarray) -> int:
    """Return m n D, an integer: the maximum over values v of |n #(a <= v) - m #(b <= v)|."""
    a, b = (np.sort(np.where(np.isnan(x), np.inf, x)) for x in (a, b))
    pooled = np.concatenate([a, b])
    in_a, in_b = (np.searchsorted(x, pooled, "right") for x in (a, b))
    return int(np.abs(in_a * len(b) - in_b * len(a)).max())


def _log_tail(m: int, n: int, gap: int) -> float:
    """Return the natural logarithm of P(a random lattice path from (0, 0) to (m, n) meets |n i - m j| >= gap)."""
    # Under the null every order of the pooled sample is equally likely, so from (i, j) the next draw is of the first
    # sample with probability (m - i) / (m + n - i - j). Backwards over antidiagonals, all terms positive: nothing
    # cancels, and logarithms cannot underflow.
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


WordRule = Literal["tofu", "unicode", "symbols"]


def words(text: str, rule: WordRule = "tofu", *, stemmed: bool = True) -> tuple[str, ...]:
    """Return the words of `text`: by the rule `tofu` runs of a to z and 0 to 9, as `rouge-score` has them, by the rule
    `unicode` those of any script (`lethe.data.words`), which are the same where all of the text is ASCII, by the rule
    `symbols` these and each symbol. If `stemmed`, words of more than three letters are stemmed."""
    if rule == "tofu":
        from rouge_score.tokenize import tokenize

        return tuple(tokenize(text, porter_stemmer() if stemmed else None))
    found = symbols_and_words(text) if rule == "symbols" else unicode_words(text)
    if not stemmed:
        return found
    stem = porter_stemmer().stem
    return tuple(stem(word) if len(word) > 3 and word.isascii() else word for word in found)


@lru_cache(maxsize=2**14)  # the same in every trial of a study
def reference_words(
    reference: str, rule: RougeRule = "tofu", *, stemmed: bool = True
) -> tuple[WordRule, tuple[str, ...]]:
    """Return the rule by which texts are compared with `reference`, and its words: `rule` itself, but `unicode` for one
    in which `tofu` finds no word or that has letters of another script than Latin, and `symbols` for one that has
    neither letters nor digits."""
    if rule == "tofu" and is_latin(reference) and (found := words(reference, stemmed=stemmed)):
        return "tofu", found
    if found := words(reference, "unicode", stemmed=stemmed):
        return "unicode", found
    return "symbols", words(reference, "symbols", stemmed=stemmed)


def rouge_l_recall(reference: str, candidate: str, rule: RougeRule = "tofu") -> float:
    """Return the length of the longest common subsequence of words over the reference's length, in [0, 1]; 0 where
    either has no words. The words are those of `reference_words`."""
    used, target = reference_words(reference, rule)
    return common_subsequence(target, words(candidate, used)) / len(target) if target else 0.0


def rouge_l_f1(reference: str, candidate: str, rule: RougeRule = "tofu") -> float:
    """Return ROUGE-L's F1, the harmonic mean of its precision and recall, of words that are not stemmed, in [0, 1]; 0
    where either text has no words."""
    used, target = reference_words(reference, rule, stemmed=False)
    found = words(candidate, used, stemmed=False)
    # 2 p r / (p + r) with p = common / found and r = common / target
    return 2 * common_subsequence(target, found) / (len(target) + len(found)) if target and found else 0.0


def common_subsequence(target: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of `target` and `other`."""
    # One bit per word of `target`; a zero bit in `row` is a match.
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(target):
        places[word] |= 1 << place
    full = row = (1 << len(target)) - 1
    for word in other:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(target) - row.bit_count()


def losses(values: Iterable[float]) -> Array:
    """Return `values` as float64 [n], with infinity in place of NaN."""
    array = np.array(values, dtype=np.float64)
    array[np.isnan(array)] = np.inf
    return array


def loss_difference(loss: Array, reference: Array) -> Array:
    """Return `loss` less a `reference` model's [n]; infinite where the difference is not a number."""
    with np.errstate(invalid="ignore"):
        return losses(loss - reference)


def perplexity(loss: float) -> float:
    """Return exp(loss), finite whatever the loss."""
    return math.exp(LARGEST_LOSS if math.isnan(loss) else min(loss, LARGEST_LOSS))


def probability(answer: Array) -> Array:
    """Return exp(-loss) [n]: the answers' probabilities, normalised by their lengths."""
    values: Array = np.exp(-losses(answer))
    return values


def option_probability(answer: Array, perturbed: Sequence[Array]) -> Array:
    """Return the answers' shares of the probability of all options [n]; 0 where every option is impossible."""
    log_share = np.empty(len(perturbed))
    for row, (right, wrong) in enumerate(zip(losses(answer), perturbed, strict=True)):
        total = np.logaddexp.reduce(-np.append(losses(wrong), right))
        log_share[row] = -np.inf if np.isneginf(total) else -right - total
    shares: Array = np.exp(log_share)
    return shares


def truth_ratio(paraphrase: Array, perturbed: Sequence[Array]) -> Array:
    """Return R = exp(paraphrase - mean(perturbed)) [n], a ratio of geometric means; NaN where both are impossible.

    Real authors and world facts have no paraphrase: give the answer's loss in its place.
    """
    sizes = np.array([len(row) for row in perturbed])
    row = np.repeat(np.arange(len(sizes)), sizes)
    mean = np.bincount(row, weights=losses(np.concatenate([*perturbed, np.empty(0)])), minlength=len(sizes)) / sizes
    with np.errstate(over="ignore", invalid="ignore"):
        ratio: Array = np.exp(losses(paraphrase) - mean)
    return ratio


def truth_score(ratio: Array) -> Array:
    """Return max(0, 1 - R) [n]: off the forget set, how much likelier the truth is than the perturbed answers."""
    return np.where(ratio < 1, 1 - ratio, 0.0)


def forget_truth_score(ratio: Array) -> Array:
    """Return min(R, 1/R) [n]: on the forget set, 1 where the truth and the perturbed answers are equally likely."""
    with np.errstate(divide="ignore"):
        smaller: Array = np.minimum(ratio, 1 / ratio)
    return np.asarray(np.nan_to_num(smaller, nan=0.0))


def harmonic_mean(values: Iterable[float]) -> float:
    """Return the harmonic mean of `values`, such as model utility of its components; 0 where a value is not above 0,
    NaN included, and without values."""
    array = np.array(list(values), dtype=np.float64)
    if array.size == 0 or not (array > 0).all():
        return 0.0
    return float(array.size / (1 / array).sum())


def exact_memorization(correct: Sequence[Array]) -> Array:
    """Return the share of answer tokens that are the argmax [n]; 0 for an empty answer. `correct`: bools per token, one
    array per answer, without the end of sequence."""
    return np.array([row.mean() if len(row) else 0.0 for row in correct])


def extraction_strength(correct: Sequence[Array]) -> Array:
    """Return 1 - k/n for each answer of n tokens [number of answers], k the length of the shortest prefix after which
    teacher-forced argmax gives the rest; 0 if none does. `correct` as in `exact_memorization`."""
    return np.array([_right_suffix(row) / len(row) if len(row) else 0.0 for row in correct])


def _right_suffix(row: Array) -> int:
    """Return how many tokens at the end are all correct."""
    wrong = np.flatnonzero(~row)
    return len(row) - 1 - int(wrong[-1]) if wrong.size else len(row)


def auc(members: Array, others: Array) -> float:
    """Return the area under the ROC curve: the probability that a member's score exceeds another's, ties count half."""
    order = np.sort(others)
    below, through = np.searchsorted(order, members, "left"), np.searchsorted(order, members, "right")
    return float((below + through).mean() / (2 * len(order)))
