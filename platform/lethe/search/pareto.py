"""Pareto tools on numpy arrays: dominance, fronts, places, knee, hypervolume (docs/METHODS.md section 6).

Everywhere `values` is [n, k]: one row per trial, one column per objective; `directions` are k of "minimize" or
"maximize"; `floors` are k values that a feasible row must be better than, None where an objective has no floor.
Rows with a NaN or an infinity are never feasible, never on a front, and come last.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Floors = Sequence[float | None]


def signed(values: ArrayLike, directions: Sequence[str]) -> Floats:
    """Return `values` [n, k] as float64 with the signs turned so that higher is better in every column."""
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    table: Floats = np.asarray(values, dtype=np.float64).reshape(-1, len(signs))
    turned: Floats = table * signs
    return turned


def dominates(a: ArrayLike, b: ArrayLike, directions: Sequence[str]) -> bool:
    """Return whether row `a` [k] is nowhere worse than `b` [k] and somewhere better."""
    first, second = signed(np.stack([np.asarray(a), np.asarray(b)]), directions)
    return bool((first >= second).all() and (first > second).any())


def feasible(values: ArrayLike, floors: Floors, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each row [n] whether it is finite and better than every floor. Equal is not enough: the start model is
    exactly at its own floor."""
    good = signed(values, directions)
    above = np.isfinite(good).all(axis=1) & (_shortfall(good, floors, directions) < 0).all(axis=1)
    return np.asarray(above, dtype=np.bool_)


def ranks(values: ArrayLike, directions: Sequence[str], floors: Floors | None = None) -> NDArray[np.int64]:
    """Return the index of each row's front [n], by repeated removal: rows with 0 are dominated by no feasible row. All
    finite infeasible rows share the next index, all non-finite ones the index after that."""
    good = signed(values, directions)
    eligible, finite = _eligible(values, directions, floors), np.isfinite(good).all(axis=1)
    front = _fronts(good[eligible])
    last = int(front.max(initial=-1)) + 1
    indices = np.where(finite, last, last + 1).astype(np.int64)
    indices[eligible] = front
    return indices


def places(values: ArrayLike, directions: Sequence[str], floors: Floors | None = None) -> NDArray[np.int64]:
    """Return the place of each row [n], a permutation of 0..n-1 with 0 the best. Row i has place `places[i]`: these are
    not the row numbers in sorted order.

    Feasible rows first: front by front, inside a front each objective's best, then always the row farthest from those
    already placed, on the front's own [0, 1] scales. Then infeasible rows, least total shortfall first (constrained
    domination, Deb et al. 2002), then non-finite ones. Equal rows keep their order.
    """
    good = signed(values, directions)
    eligible, finite = _eligible(values, directions, floors), np.isfinite(good).all(axis=1)
    front = ranks(values, directions, floors)
    order: list[int] = []
    for rank in np.unique(front[eligible]):
        members = np.flatnonzero(eligible & (front == rank))
        order += members[_spread(good[members])].tolist()
    rest = np.flatnonzero(finite & ~eligible)
    if rest.size:
        short = np.maximum(_shortfall(good[rest], floors or [], directions), 0) / _widths(good[finite])
        order += rest[np.lexsort([*(-good[rest].T), short.sum(axis=1)])].tolist()
    order += np.flatnonzero(~finite).tolist()
    place = np.empty(len(good), dtype=np.int64)
    place[order] = np.arange(len(good))
    return place


def spread(values: ArrayLike, directions: Sequence[str], first: Sequence[int]) -> list[int]:
    """Return the row numbers of one front, all finite: `first`, then the others in the order of their places, far from
    these too."""
    return _spread(signed(values, directions), first)


def extremes(values: ArrayLike, directions: Sequence[str], floors: Floors | None = None) -> NDArray[np.bool_]:
    """Return for each row [n] whether it is the best of the first front in some objective: at most one row per
    objective, whatever the ties, and none where no row is feasible."""
    good = signed(values, directions)
    front = np.flatnonzero(_eligible(values, directions, floors) & (ranks(values, directions, floors) == 0))
    extreme = np.zeros(len(good), dtype=np.bool_)
    if front.size:
        extreme[front[_best_rows(_by_value(good[front]))]] = True
    return extreme


def knee(gains: ArrayLike) -> int | None:
    """Return the row of a front's `gains` [n, k] that is farthest from the chord between its two extremes, on the
    better side of it; None where there are no rows.

    Gains are floor-normalised, higher is better. Of rows equally far (a straight front, or two rows) it is the one with
    the best worst gain. With more than two objectives there is no chord: it is the row with the largest sum.
    """
    points = np.asarray(gains, dtype=np.float64)
    if not points.size:
        return None
    height = points.sum(axis=1)
    if points.shape[1] == 2:
        first, second = points[points.argmax(axis=0)]
        height = (points - first) @ np.array([second[1] - first[1], first[0] - second[0]])
    tied = np.flatnonzero(height >= height.max() - 1e-12 * max(1.0, abs(height.max())))
    return int(tied[points[tied].min(axis=1).argmax()])


def hypervolume(gains: ArrayLike) -> float:
    """Return the volume between the floors (the origin) and the rows of `gains` [n, k], higher is better everywhere.

    By moocore, exact for any k. Rows below a floor or not finite add nothing; 0 without rows.
    """
    points = np.asarray(gains, dtype=np.float64)
    if not points.size:
        return 0.0
    points = points[np.isfinite(points).all(axis=1) & (points > 0).all(axis=1)]
    return float(moocore.hypervolume(points, ref=[0.0] * points.shape[1], maximise=True)) if len(points) else 0.0


def _eligible(values: ArrayLike, directions: Sequence[str], floors: Floors | None) -> NDArray[np.bool_]:
    return feasible(values, floors or [None] * len(directions), directions)


def _shortfall(good: Floats, floors: Floors, directions: Sequence[str]) -> Floats:
    """Return how far each row is below each floor [n, k]: negative above it, minus infinity without a floor."""
    level = [-np.inf if f is None else f if d == "maximize" else -f for f, d in zip(floors, directions, strict=True)]
    with np.errstate(invalid="ignore"):
        return np.array(level) - good


def _fronts(good: Floats) -> NDArray[np.int64]:
    """Return the front index [n] of finite rows."""
    return np.asarray(moocore.pareto_rank(good, maximise=True), dtype=np.int64)


def _widths(good: Floats) -> Floats:
    """Return the range of each column [k], 1 where it is constant."""
    width = good.max(axis=0) - good.min(axis=0)
    return np.where(width > 0, width, 1.0)


def _by_value(good: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the rows' numbers sorted by value, larger first [n], and the rows in that order on [0, 1] scales [n, k].
    Computing on sorted rows makes a result independent of the order in which the rows are given."""
    order = np.lexsort([*(-good.T[::-1])])
    return order, ((good - good.min(axis=0)) / _widths(good))[order]


def _best_rows(by_value: tuple[NDArray[np.int64], Floats]) -> list[int]:
    """Return each column's best row, as row numbers of the front, without repetitions; of several equal ones the row
    with the largest sum."""
    order, scaled = by_value
    best = [int(np.lexsort([-scaled.sum(axis=1), -column])[0]) for column in scaled.T]
    return [int(row) for row in order[list(dict.fromkeys(best))]]


def _spread(good: Floats, first: Sequence[int] = ()) -> list[int]:
    """Return the row numbers of `good` (one front) in the order of their places: `first` and the extremes, then always
    the row farthest from those before it. Ties go to the larger values, whatever the order of the rows."""
    order, scaled = by_value = _by_value(good)
    position = np.argsort(order)
    chosen = list(dict.fromkeys(int(position[row]) for row in (*first, *_best_rows(by_value))))
    gap = np.min([np.linalg.norm(scaled - scaled[c], axis=1) for c in chosen], axis=0)
    while len(chosen) < len(scaled):
        gap[chosen] = -1.0
        farthest = int(gap.argmax())
        chosen.append(farthest)
        gap = np.minimum(gap, np.linalg.norm(scaled - scaled[farthest], axis=1))
    return [int(row) for row in order[chosen]]
