"""Pareto tools on numpy arrays: dominance, fronts, places, knee, hypervolume (METHODS section 6).

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
    """Float64 [n, k] where higher is better in every column."""
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    return np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs


def dominates(a: ArrayLike, b: ArrayLike, directions: Sequence[str]) -> bool:
    """Whether a [k] is nowhere worse than b [k] and somewhere better."""
    first, second = signed([a, b], directions)
    return bool((first >= second).all() and (first > second).any())


def feasible(values: ArrayLike, floors: Floors, directions: Sequence[str]) -> NDArray[np.bool_]:
    """[n]: finite and better than every floor. Equal is not enough: the start model sits on its own floor."""
    good = signed(values, directions)
    return np.isfinite(good).all(axis=1) & (_shortfall(good, floors, directions) < 0).all(axis=1)


def ranks(values: ArrayLike, directions: Sequence[str], floors: Floors | None = None) -> NDArray[np.int64]:
    """[n]: the index of each row's front, by repeated removal; 0 is not dominated by any feasible row. All finite
    infeasible rows share the next index, all non-finite ones the one after that."""
    good = signed(values, directions)
    able, finite = _able(values, directions, floors), np.isfinite(good).all(axis=1)
    front = _fronts(good[able])
    last = front.max(initial=-1) + 1
    out = np.where(finite, last, last + 1)
    out[able] = front
    return out


def places(values: ArrayLike, directions: Sequence[str], floors: Floors | None = None) -> NDArray[np.int64]:
    """[n]: the place of every row, a permutation of 0..n-1 with 0 best. Row i has place `places[i]`: these are not
    the indices of sorted rows.

    Feasible rows first: front by front, inside a front each objective's best, then always the row farthest from those
    already placed, on the front's own [0, 1] scales. Then infeasible rows, least total shortfall first (constrained
    domination, Deb et al. 2002), then non-finite ones. Equal rows keep their order.
    """
    good = signed(values, directions)
    able, finite = _able(values, directions, floors), np.isfinite(good).all(axis=1)
    front = ranks(values, directions, floors)
    order: list[int] = []
    for rank in np.unique(front[able]):
        members = np.flatnonzero(able & (front == rank))
        order += members[_spread(good[members])].tolist()
    rest = np.flatnonzero(finite & ~able)
    if rest.size:
        short = np.maximum(_shortfall(good[rest], floors or [], directions), 0) / _widths(good[finite])
        order += rest[np.lexsort([*(-good[rest].T), short.sum(axis=1)])].tolist()
    order += np.flatnonzero(~finite).tolist()
    place = np.empty(len(good), dtype=np.int64)
    place[order] = np.arange(len(good))
    return place


def extremes(values: ArrayLike, directions: Sequence[str], floors: Floors | None = None) -> NDArray[np.bool_]:
    """[n]: which rows are the best of the first front in some objective. One row per objective at most, whatever the
    ties; none where no row is feasible."""
    good = signed(values, directions)
    front = np.flatnonzero(_able(values, directions, floors) & (ranks(values, directions, floors) == 0))
    out = np.zeros(len(good), dtype=np.bool_)
    if front.size:
        out[front[_ends(_by_value(good[front]))]] = True
    return out


def knee(gains: ArrayLike) -> int | None:
    """Which row of a front is farthest from the chord between its two extremes, on the better side of it.

    `gains` [n, k] are the members of one front, floor-normalised, higher is better; None where there are none. Of
    rows equally far (a straight front, or two rows) the one with the best worst gain. With more than two objectives
    there is no chord: the largest sum of gains.
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
    """The exact volume between the floors (the origin) and `gains` [n, k], higher is better in every column.

    By moocore, which is exact for any k; rows below a floor or not finite add nothing.
    """
    points = np.asarray(gains, dtype=np.float64)
    if not points.size:
        return 0.0
    points = points[np.isfinite(points).all(axis=1) & (points > 0).all(axis=1)]
    return float(moocore.hypervolume(points, ref=[0.0] * points.shape[1], maximise=True)) if len(points) else 0.0


def _able(values: ArrayLike, directions: Sequence[str], floors: Floors | None) -> NDArray[np.bool_]:
    return feasible(values, floors or [None] * len(directions), directions)


def _shortfall(good: Floats, floors: Floors, directions: Sequence[str]) -> Floats:
    """[n, k]: how far below its floor a row is; negative above, minus infinity without a floor."""
    level = [-np.inf if f is None else f if d == "maximize" else -f for f, d in zip(floors, directions, strict=True)]
    with np.errstate(invalid="ignore"):
        return np.array(level) - good


def _fronts(good: Floats) -> NDArray[np.int64]:
    """[n] front indices of finite rows."""
    return np.asarray(moocore.pareto_rank(good, maximise=True), dtype=np.int64)


def _widths(good: Floats) -> Floats:
    """[k]: each column's range; 1 where it is constant."""
    width = good.max(axis=0) - good.min(axis=0)
    return np.where(width > 0, width, 1.0)


def _by_value(good: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The order of the rows by value, larger first, and the rows in it on [0, 1] scales: what follows depends on what
    the rows are and not on how they lie."""
    order = np.lexsort([*(-good.T[::-1])])
    return order, ((good - good.min(axis=0)) / _widths(good))[order]


def _ends(by_value: tuple[NDArray[np.int64], Floats]) -> list[int]:
    """Each column's best row, as positions in the front; of several, the one with the largest sum."""
    order, scaled = by_value
    best = [int(np.lexsort([-scaled.sum(axis=1), -column])[0]) for column in scaled.T]
    return order[list(dict.fromkeys(best))].tolist()


def _spread(good: Floats) -> list[int]:
    """Positions in `good` (one front), extremes first, then farthest first; ties go to the larger values, whatever
    the order of the rows."""
    order, scaled = by_value = _by_value(good)
    at = np.argsort(order)
    chosen = [int(at[end]) for end in _ends(by_value)]
    gap = np.min([np.linalg.norm(scaled - scaled[c], axis=1) for c in chosen], axis=0)
    while len(chosen) < len(scaled):
        gap[chosen] = -1.0
        nearest = int(gap.argmax())
        chosen.append(nearest)
        gap = np.minimum(gap, np.linalg.norm(scaled - scaled[nearest], axis=1))
    return order[chosen].tolist()
