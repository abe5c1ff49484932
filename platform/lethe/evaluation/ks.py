"""The exact two-sample Kolmogorov-Smirnov test, also where p underflows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class KS(NamedTuple):
    """`statistic`: D, the largest gap between the two empirical distributions; `p`: P(D or more), exact."""

    statistic: float
    p: float
    log10_p: float


def ks(a: np.ndarray, b: np.ndarray) -> KS:
    """Two-sided test that `a` [m] and `b` [n] are draws from one distribution (Hodges 1958).

    p is scipy's `ks_2samp(method="exact")`, which gives up or underflows where log10_p here stays right.
    NaN ranks above every number: a model that gives no number differs from one that does.
    """
    m, n = len(a), len(b)
    gap = _largest_gap(a, b)
    log_p = _log_tail(m, n, gap)
    return KS(gap / (m * n), float(np.exp(log_p)), float(log_p / np.log(10)))


def _largest_gap(a: np.ndarray, b: np.ndarray) -> int:
    """m n D, an integer: max over values v of |n #(a <= v) - m #(b <= v)|."""
    a, b = (np.sort(np.where(np.isnan(x), np.inf, x)) for x in (a, b))
    pooled = np.concatenate([a, b])
    counts = (np.searchsorted(x, pooled, "right") for x in (a, b))
    in_a, in_b = counts
    return int(np.abs(in_a * len(b) - in_b * len(a)).max())


def _log_tail(m: int, n: int, gap: int) -> float:
    """ln P(a random lattice path from (0, 0) to (m, n) meets |n i - m j| >= gap).

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
