"""The exact KS test against published p-values, scipy, and counting by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb, log10

import numpy as np
import pytest
from scipy.stats import ks_2samp

from lethe.evaluation.metrics import ks_test


def shifted(n: int, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of n in random order, without ties, whose KS distance is by/n."""
    random = np.random.default_rng(n)
    a = np.arange(n, dtype=float)
    return random.permutation(a), random.permutation(a + by - 0.5)


@pytest.mark.parametrize(
    ("n", "gap", "p"),
    [(40, 16, 0.003018184077228396), (40, 15, 0.006760732303569208), (300, 144, 1.161721406761561e-31)],
)
def test_p_equals_golden_values(n: int, gap: int, p: float) -> None:
    test = ks_test(*shifted(n, gap))
    assert test.statistic == pytest.approx(gap / n, rel=1e-15)
    assert test.p == pytest.approx(p, rel=1e-9)
    assert test.log10_p == pytest.approx(log10(p), abs=1e-9)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 5), (4, 4), (13, 40), (97, 101), (100, 300)])
@pytest.mark.parametrize("shift", [0.0, 0.4, 1.5])
def test_p_equals_scipys_with_ties(m: int, n: int, shift: float) -> None:
    random = np.random.default_rng(m * n)
    a, b = random.normal(size=m).round(1), random.normal(size=n).round(1) + shift
    expected = ks_2samp(a, b, method="exact")
    test = ks_test(a, b)
    assert test.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-10)
    assert ks_test(b, a).p == pytest.approx(test.p, rel=1e-12)


def test_p_equals_counting_every_order() -> None:
    m, n, gap = 4, 6, Fraction(7, 12)
    far = 0
    for places in combinations(range(m + n), m):
        inside = np.isin(np.arange(m + n), places)
        first, second = np.cumsum(inside).tolist(), np.cumsum(~inside).tolist()
        far += max(abs(Fraction(x, m) - Fraction(y, n)) for x, y in zip(first, second, strict=True)) >= gap
    a, b = np.array([0.0, 1, 2, 12]), np.array([2.5, 3, 4, 5, 6, 13])
    assert ks_test(a, b).statistic == pytest.approx(float(Fraction(3, 4)))
    a = np.array([0.0, 1, 2.7, 12])  # 3/4 - 1/6
    assert ks_test(a, b).statistic == pytest.approx(float(gap))
    assert ks_test(a, b).p == pytest.approx(far / comb(m + n, m), rel=1e-13)


def test_log10_p_is_right_where_p_underflows() -> None:
    n = 1000
    test = ks_test(np.zeros(n), np.ones(n))
    assert (test.statistic, test.p) == (1.0, 0.0)
    assert test.log10_p == pytest.approx(log10(2) - log10(comb(2 * n, n)), rel=1e-12)


def test_equal_samples_have_p_of_one() -> None:
    assert ks_test(np.ones(5), np.ones(7)) == (0.0, 1.0, 0.0)


def test_nan_ranks_above_everything() -> None:
    oracle = np.linspace(0.5, 1.5, 20)
    assert ks_test(np.full(20, np.nan), oracle).statistic == 1.0
    some = np.where(np.arange(20) < 5, np.nan, oracle)
    assert ks_test(some, oracle).statistic == 0.25
