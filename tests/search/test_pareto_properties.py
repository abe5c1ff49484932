"""What holds for every table: row order, units, ties, NaN, one row, mixed directions."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.search import pareto

settings.register_profile("quick", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("quick")

# Few values, so that ties and equal rows abound; multiples of 1/4, so that rescaling is exact.
NUMBERS = st.integers(-6, 6).map(lambda i: i / 4)
ODD = st.sampled_from([float("nan"), float("inf"), -float("inf")])


@st.composite
def tables(draw: st.DrawFn, odd: bool = True) -> tuple[np.ndarray, list[str], list[float | None]]:
    """Values [n, k], directions and floors."""
    k, n = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    cell = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD) if odd else NUMBERS
    values = draw(st.lists(st.lists(cell, min_size=k, max_size=k), min_size=n, max_size=n))
    directions = draw(st.lists(st.sampled_from(["minimize", "maximize"]), min_size=k, max_size=k))
    return np.array(values), directions, draw(st.lists(st.one_of(st.none(), NUMBERS), min_size=k, max_size=k))


def better(a: np.ndarray, b: np.ndarray, directions: list[str]) -> bool:
    """Dominance, said again one value at a time."""
    pairs = [(x, y) if d == "maximize" else (-x, -y) for x, y, d in zip(a, b, directions, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


@given(tables())
def test_places_put_every_row_after_those_that_beat_it(table: tuple) -> None:
    values, directions, floors = table
    places, ranks = pareto.places(values, directions, floors), pareto.ranks(values, directions, floors)
    assert sorted(places) == list(range(len(values)))
    able, whole = pareto.feasible(values, floors, directions), np.isfinite(values).all(axis=1)
    for a, b in product(range(len(values)), repeat=2):
        if (able[a] and not able[b]) or (whole[a] and not whole[b]):
            assert places[a] < places[b]
            assert ranks[a] < ranks[b]
        if able[a] and able[b] and better(values[a], values[b], directions):
            assert places[a] < places[b]
            assert ranks[a] < ranks[b]
    assert not any(
        better(values[a], values[b], directions) for a in np.flatnonzero(able) for b in np.flatnonzero(ranks == 0)
    )


@given(tables(), st.randoms(use_true_random=False), st.integers(-3, 3), st.integers(-8, 8))
def test_neither_row_order_nor_units_nor_signs_matter(table: tuple, random: object, power: int, shift: int) -> None:
    values, directions, floors = table
    order = list(range(len(values)))
    random.shuffle(order)
    scale = 2.0**power
    other = [scale * values[order] + shift, directions, [f if f is None else scale * f + shift for f in floors]]
    opposite = {"minimize": "maximize", "maximize": "minimize"}
    turned = [-values, [opposite[d] for d in directions], [f if f is None else -f for f in floors]]
    for function in (pareto.ranks, pareto.places, pareto.extremes):
        expected = function(values, directions, floors)
        assert (function(*turned) == expected).all()
        moved = function(*other)
        for row in range(len(values)):  # rows that are equal share what they have
            same = [i for i in range(len(values)) if values[i].tobytes() == values[row].tobytes()]
            assert (
                sorted(expected[same]) == sorted(moved[[order.index(i) for i in same]])
                or not np.isfinite(values[row]).all()
            )


@given(tables())
def test_extremes_are_the_best_of_the_first_front(table: tuple) -> None:
    values, directions, floors = table
    extremes = np.flatnonzero(pareto.extremes(values, directions, floors))
    able = np.flatnonzero(pareto.feasible(values, floors, directions))
    assert len(extremes) <= len(directions)
    assert bool(len(extremes)) == bool(len(able))
    good = pareto.signed(values, directions)
    for column in range(len(directions) if len(able) else 0):
        assert good[extremes, column].max() == good[able, column].max()
    if len(able):
        places = pareto.places(values, directions, floors)
        assert sorted(places[extremes]) == list(range(len(extremes))), "extremes have the first places"


@given(tables(odd=False), NUMBERS, st.integers(1, 8))
def test_hypervolume_grows_with_rows_and_scales_with_units(table: tuple, shift: float, unit: int) -> None:
    values, _, _ = table
    gains = values + shift
    volume = pareto.hypervolume(gains)
    assert volume >= pareto.hypervolume(gains[:-1]) >= 0
    assert np.isclose(pareto.hypervolume(gains * unit), volume * unit ** gains.shape[1], rtol=1e-12)
    front = pareto.ranks(gains, ["maximize"] * gains.shape[1]) == 0
    assert np.isclose(pareto.hypervolume(gains[front]), volume, rtol=1e-12)


@given(tables(odd=False), st.integers(1, 4))
def test_the_knee_is_of_the_front_and_keeps_its_place(table: tuple, unit: int) -> None:
    values, _, _ = table
    front = values[pareto.ranks(values, ["maximize"] * values.shape[1]) == 0]
    knee = pareto.knee(front)
    assert knee is not None
    assert 0 <= knee < len(front)
    assert (front[pareto.knee(front * float(unit))] == front[knee]).all()
