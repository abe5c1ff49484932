"""Laws against data that are made from them: parameters, the choice of a form, intervals that cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from lethe.scaling.law_fitting import Law, Samples, bootstrap, choose, fit, forms_for, judge

SIZES = np.array([1e5, 3e5, 1e6, 4e6, 1.6e7])


def law(exponent: float, offset: float) -> Law:
    return Law("offset", 1.0, exponent, offset, 1e6)


@pytest.mark.parametrize(("exponent", "offset"), [(0.5, 0.0), (0.8, 0.3), (1.1, 2.0)])
def test_fits_recover_the_law_that_made_the_points(exponent: float, offset: float) -> None:
    true = law(exponent, offset)
    found = fit(SIZES, true(SIZES), "offset")
    assert found.exponent == pytest.approx(exponent, rel=1e-3)
    assert found.offset == pytest.approx(offset, rel=1e-3, abs=1e-3)
    assert found(7e9) == pytest.approx(true(7e9), rel=0.02), "1e3 times larger than the largest"


def test_errors_are_relative() -> None:
    """Ten per cent at the smallest size weighs as much as ten per cent at the largest, 1,600 times as slow."""
    y = law(1.0, 0.0)(SIZES)
    first, last = (y * np.where(np.arange(5) == i, 1.1, 1.0) for i in (0, 4))
    assert fit(SIZES, first, "power")(1.2649e6) == pytest.approx(fit(SIZES, last, "power")(1.2649e6), rel=0.01)


def test_the_form_is_chosen_by_sizes_left_out() -> None:
    draw = np.random.default_rng(3)
    noise = np.exp(draw.normal(0, 0.02, 5))
    assert choose(SIZES, (law(0.7, 0.0)(SIZES) * noise).tolist(), ("power", "linear", "offset")) == "power"
    assert choose(SIZES, (law(1.0, 0.5)(SIZES) * noise).tolist(), ("power", "linear", "offset")) == "linear"
    curved = law(0.6, 5.0)(SIZES)
    assert choose(SIZES, curved.tolist(), ("power", "linear", "offset")) == "offset"


def test_forms_that_so_many_sizes_can_carry() -> None:
    assert forms_for(3) == ()
    assert forms_for(4) == ("power", "linear")
    assert forms_for(5) == ("power", "linear", "offset")
    assert forms_for(4, "offset") == ()
    with pytest.raises(ValueError, match="2 sizes"):
        fit(SIZES[:2], SIZES[:2], "offset")


def test_the_largest_size_is_predicted_without_it() -> None:
    y = law(0.9, 0.1)(SIZES)
    judged = judge(Samples(tuple(SIZES), tuple((v,) for v in [*y[:4], 3 * y[4]])), times=50)
    assert judged.held_out == 1.6e7
    assert judged.measured == pytest.approx(3 * y[4])
    assert judged.predicted == pytest.approx(y[4], rel=0.02), "what it does not see cannot move it"
    assert judged.error == pytest.approx(-2 / 3, abs=0.02)
    assert judged.final.law(1.6e7) > judged.trained.law(1.6e7)


def test_intervals_cover_the_truth() -> None:
    """90 % intervals for a size 16 times the largest, over 60 made-up studies with 10 % of noise."""
    draw = np.random.default_rng(0)
    true, far = law(0.8, 0.0), 2.56e8
    hits = 0
    for study in range(60):
        y = true(SIZES) * np.exp(draw.normal(0, 0.1, 5))
        found = bootstrap(Samples(tuple(SIZES), tuple((v,) for v in y)), "power", times=60, seed=study)
        low, high = found.interval(far, point=False)
        hits += bool(low <= true(far) <= high)
    assert 48 <= hits <= 59, "54 expected, 49 to 58 in nine of ten repetitions"


def test_repeats_that_differ_widen_an_interval_that_residuals_would_not() -> None:
    y = law(1.0, 0.0)(SIZES)
    widths = []
    for spread in (0.0, 0.3):
        repeats = tuple((v, v * np.exp(spread), v * np.exp(-spread)) for v in y)
        low, high = bootstrap(Samples(tuple(SIZES), repeats), "power", times=60).interval(1e8)
        widths.append(float(np.log(high / low)))
    assert widths[1] > 0.3 > 0.01 > widths[0]
