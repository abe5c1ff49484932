"""A study's frame of reference: floors and scales, fixed before the first trial and stored with the study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from lethe.config.base import Frozen
from lethe.config.metrics import Direction
from lethe.config.search import Goal
from lethe.errors import BadInput
from lethe.search import pareto
from lethe.search.pareto import Floats


class Frame(Frozen):
    """Per objective, in the study's order. A gain is how far a value is better than `origins`, in units of `scales`."""

    names: tuple[str, ...]
    directions: tuple[Direction, ...]
    floors: tuple[float | None, ...]
    origins: tuple[float, ...]
    scales: tuple[float, ...]
    start: dict[str, float]

    @classmethod
    def of(cls, goals: Mapping[str, Goal], start: Mapping[str, float]) -> Self:
        """From the start model's metrics. The origin is the floor (0 without one); the scale is the distance from
        floor to start, or the floor's own size where they are equal, so that with the default floors a gain of 1 is
        the oracle's forgetting and the start model's utility (METHODS section 6)."""
        known = {name: float(start[name]) for name in goals if math.isfinite(start.get(name, math.nan))}
        floors = tuple(_floor(name, goal, known) for name, goal in goals.items())
        origins = tuple(0.0 if floor is None else floor for floor in floors)
        pairs = zip(goals, origins, strict=True)
        return cls(
            names=tuple(goals),
            directions=tuple(goal.direction for goal in goals.values()),
            floors=floors,
            origins=origins,
            scales=tuple(abs(known.get(name, origin) - origin) or abs(origin) or 1.0 for name, origin in pairs),
            start=known,
        )

    def values(self, metrics: Mapping[str, object]) -> list[float]:
        """The objectives of a report, in order; NaN for one that is missing or no number."""
        return numbers(metrics, self.names)

    def gains(self, values: ArrayLike) -> Floats:
        """[n, k]: 0 at the floor, higher is better."""
        origin = pareto.signed([self.origins], self.directions)
        return (pareto.signed(values, self.directions) - origin) / np.array(self.scales)

    def violations(self, values: ArrayLike) -> dict[str, float]:
        """For one row [k] and every objective with a floor: above 0 iff not better than it, in units of the scale."""
        gains = self.gains([values])[0]
        pairs = zip(self.names, self.floors, gains, strict=True)
        return {name: -float(gain) if gain else 1e-12 for name, floor, gain in pairs if floor is not None}

    def feasible(self, values: ArrayLike) -> np.ndarray:
        """[n] bool: finite and better than every floor."""
        return pareto.feasible(values, self.floors, self.directions)

    def ranks(self, values: ArrayLike) -> np.ndarray:
        """[n]: 0 is the first front of feasible rows, as `pareto.ranks`; if none is feasible no row has 0."""
        ranks = pareto.ranks(values, self.directions, self.floors)
        return ranks if self.feasible(values).any() else ranks + 1

    def front(self, values: ArrayLike) -> list[int]:
        """Rows of the first feasible front, best place first."""
        places = pareto.places(values, self.directions, self.floors)
        members = np.flatnonzero(self.ranks(values) == 0)
        return members[places[members].argsort()].tolist()

    def knee(self, values: ArrayLike) -> int | None:
        """The row of the front's knee, or None without a front."""
        members = self.front(values)
        chosen = pareto.knee(self.gains(values)[members]) if members else None
        return None if chosen is None else members[chosen]

    def hypervolume(self, values: ArrayLike) -> float:
        """Volume of gains over the floors, of the feasible rows, in the objectives that have a floor."""
        floored = [i for i, floor in enumerate(self.floors) if floor is not None]
        return pareto.hypervolume(self.gains(values)[self.feasible(values)][:, floored]) if floored else 0.0


def numbers(metrics: Mapping[str, object], names: Iterable[str]) -> list[float]:
    """These values of a report, in order; NaN for one that is missing or no number."""
    found = (metrics.get(name) for name in names)
    return [float(v) if isinstance(v, int | float | np.number) else math.nan for v in found]


def _floor(name: str, goal: Goal, start: Mapping[str, float]) -> float | None:
    if goal.floor_of_start is None:
        return goal.floor
    if name not in start:
        raise BadInput(f"objectives.{name}.floor_of_start: the start model has no {name}: use floor")
    return goal.floor_of_start * start[name]
