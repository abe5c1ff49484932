"""Pareto tools against brute force, and what must not change them: row order, ties, scales, NaN."""

from itertools import combinations

import numpy as np
import pytest

from lethe.search import pareto

MIXED = ["minimize", "maximize"]
UP = {k: ["maximize"] * k for k in (1, 2, 3)}


def brute_ranks(good: np.ndarray) -> np.ndarray:
    """Fronts by repeated removal, one pair at a time."""
    rank, left, level = np.zeros(len(good), int), set(range(len(good))), 0
    while left:
        front = {i for i in left if not any((good[j] >= good[i]).all() and (good[j] > good[i]).any() for j in left)}
        rank[list(front)] = level
        left, level = left - front, level + 1
    return rank


def cases(k: int, count: int = 40) -> list[np.ndarray]:
    """Random values, every second case on a coarse grid so that ties and equal rows abound."""
    generator = np.random.default_rng(k)
    values = [generator.normal(size=(generator.integers(1, 25), k)) for _ in range(count)]
    return [np.round(v) if i % 2 else v for i, v in enumerate(values)]


def test_dominance_needs_nowhere_worse_and_somewhere_better() -> None:
    assert pareto.dominates([1, 5], [2, 5], MIXED)
    assert not pareto.dominates([2, 5], [2, 5], MIXED)
    assert not pareto.dominates([1, 4], [2, 5], MIXED)
    assert not pareto.dominates([np.nan, 9], [2, 5], MIXED)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ranks_equal_brute_force_in_any_row_order(k: int) -> None:
    generator = np.random.default_rng(0)
    for values in cases(k):
        ranks = pareto.ranks(values, UP[k])
        assert (ranks == brute_ranks(values)).all()
        order = generator.permutation(len(values))
        assert (pareto.ranks(values[order], UP[k]) == ranks[order]).all()
        assert (pareto.ranks(-values, ["minimize"] * k) == ranks).all()


def test_places_are_per_row_and_no_row_indices() -> None:
    """The mistake of the best-known MO-ASHA: on these rows, indices of sorted rows are [2, 0, 1]."""
    assert pareto.places([[0.5], [0.7], [0.1]], ["minimize"]).tolist() == [1, 2, 0]
    places = pareto.places([[3.0, 1.0], [9.0, 0.0], [1.0, 2.0], [2.0, 1.5]], MIXED)
    assert places.tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_places_are_a_permutation_that_follows_the_fronts(k: int) -> None:
    for values in cases(k):
        places = pareto.places(values, UP[k])
        assert sorted(places) == list(range(len(values)))
        ranks = pareto.ranks(values, UP[k])
        assert (np.diff(ranks[np.argsort(places)]) >= 0).all()


@pytest.mark.parametrize("k", [2, 3])
def test_a_row_keeps_its_place_when_rows_move_or_scales_change(k: int) -> None:
    """Distinct rows exactly; equal rows share a set of places. Powers of two and small integers keep floats exact."""
    generator = np.random.default_rng(1)
    for values in cases(k):
        places = pareto.places(values, UP[k])
        order = generator.permutation(len(values))
        moved = pareto.places(values[order], UP[k])
        for row in np.unique(values, axis=0):
            same = (values == row).all(axis=1)
            assert sorted(places[same]) == sorted(moved[same[order]])
        whole = np.round(values * 4)
        scaled = pareto.places(whole * 2.0 ** np.arange(k) + 8.0, UP[k])
        assert (pareto.places(whole, UP[k]) == scaled).all()


def test_inside_a_front_extremes_come_first_then_the_farthest() -> None:
    front = np.array([[0.1, 0.9], [0.0, 1.0], [0.55, 0.5], [1.0, 0.0], [0.2, 0.8]])
    assert pareto.places(front, UP[2]).tolist() == [4, 1, 2, 0, 3]
    # The same, with another unit in one column: the spread is on the front's own scales.
    assert pareto.places(front * [1.0, 1024.0], UP[2]).tolist() == [4, 1, 2, 0, 3]


def test_infeasible_rows_come_after_feasible_ones_and_non_finite_last() -> None:
    values = [[0.0, 0.0], [np.nan, 0.9], [0.5, 0.6], [0.95, 0.9], [0.4, 0.29], [0.5, np.inf]]
    floors = [0.9, 0.3]
    assert pareto.feasible(values, floors, MIXED).tolist() == [False, False, True, False, False, False]
    assert pareto.places(values, MIXED, floors).tolist() == [3, 4, 0, 2, 1, 5]
    assert pareto.ranks(values, MIXED, floors).tolist() == [1, 2, 0, 1, 1, 2]


def test_the_start_model_on_its_own_floor_is_infeasible() -> None:
    assert pareto.feasible([[0.9, 0.6], [0.89, 0.6]], [0.9, 0.3], MIXED).tolist() == [False, True]
    assert pareto.feasible([[0.9, 0.1]], [None, None], MIXED).all()


@pytest.mark.parametrize("values", [np.empty((0, 2)), np.full((3, 2), np.nan), np.ones((1, 2)), np.ones((4, 2))])
def test_empty_and_constant_inputs_have_results(values: np.ndarray) -> None:
    assert pareto.places(values, MIXED).tolist() == list(range(len(values)))
    assert len(pareto.ranks(values, MIXED)) == len(values)
    assert pareto.hypervolume(values) == (1.0 if np.isfinite(values).any() else 0.0)


def brute_volume(points: np.ndarray) -> float:
    """Inclusion and exclusion over all subsets of boxes."""
    return sum(
        (-1) ** (size + 1) * float(np.prod(np.min(subset, axis=0)))
        for size in range(1, len(points) + 1)
        for subset in combinations(points, size)
    )


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_hypervolume_is_exact(k: int) -> None:
    generator = np.random.default_rng(k)
    for n in range(1, 8):
        points = np.round(generator.random((n, k)) + 0.05, 1 + n % 3)
        volume = pareto.hypervolume(points)
        assert volume == pytest.approx(brute_volume(points), rel=1e-12)
        assert pareto.hypervolume(points[generator.permutation(n)]) == pytest.approx(volume, rel=1e-12)
        worthless = [[-1.0] * k, [np.nan] * k, [0.0] * k]
        assert pareto.hypervolume(np.vstack([worthless, points])) == volume


def test_knee_is_farthest_from_the_chord_on_the_better_side() -> None:
    assert pareto.knee([[0.0, 1.0], [0.3, 0.4], [0.8, 0.7], [1.0, 0.0]]) == 2
    assert pareto.knee([[1.0, 0.2], [0.4, 0.5], [0.2, 1.1]]) == 0  # sagging inwards: an end, the one with more of both
    assert pareto.knee([[0.2, 0.9]]) == 0
    assert pareto.knee([[0.1, 0.9], [0.9, 0.3]]) == 1
    assert pareto.knee(np.empty((0, 2))) is None
    assert pareto.knee([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 1.2]]) == 1


def test_knee_does_not_depend_on_row_order() -> None:
    generator = np.random.default_rng(3)
    for _ in range(30):
        angle = generator.random(9) * np.pi / 2
        front = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1
        order = generator.permutation(9)
        assert order[pareto.knee(front[order])] == pareto.knee(front)
