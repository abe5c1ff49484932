"""The objectives of a study as one space: directions, floors and scales.

They are fixed before the first trial and stored with the study, so that all sessions compare alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lethe.config.base import Frozen
from lethe.config.metrics import Direction
from lethe.config.search import Goal
from lethe.errors import UserError
from lethe.records import ObjectiveRecord
from lethe.search import pareto
from lethe.search.pareto import Floats


class ObjectiveSpace(Frozen):
    """Name, direction, floor (None: no floor), origin and scale of each of k objectives, in the study's order.

    A gain is how far a value is better than its origin, in units of its scale. `start` has the start model's values.
    Everywhere `values` is [n, k], one row per trial.
    """

    names: tuple[str, ...]
    directions: tuple[Direction, ...]
    floors: tuple[float | None, ...]
    origins: tuple[float, ...]
    scales: tuple[float, ...]
    start: dict[str, float]

    @classmethod
    def from_goals(cls, goals: Mapping[str, Goal], start: Mapping[str, float]) -> Self:
        """Return the space of a study's `goals` by objective, from the start model's metrics `start`.

        The origin is the floor (0 without one). The scale is the distance from the floor to the start model, or the
        floor's own size where they are equal, so that with the default floors a gain of 1 is the oracle's forgetting
        and the start model's utility (docs/METHODS.md section 6). Raises UserError for a floor relative to a metric
        that the start model does not have.
        """
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

    @classmethod
    def from_records(cls, records: Iterable[ObjectiveRecord], start: Mapping[str, float]) -> Self:
        """Return the space of a finished study from its frozen floors and the start model's metrics `start`."""
        return cls.from_goals({r.metric: Goal(direction=r.direction, floor=r.floor) for r in records}, start)

    def values(self, metrics: Mapping[str, object]) -> list[float]:
        """Return the objectives [k] of a report; NaN for one that is missing or no number."""
        return numeric_values(metrics, self.names)

    def gains(self, values: ArrayLike) -> Floats:
        """Return the gain of each value [n, k]: 0 at the floor, higher is better."""
        origin = pareto.signed([self.origins], self.directions)
        gains: Floats = (pareto.signed(values, self.directions) - origin) / np.array(self.scales)
        return gains

    def violations(self, values: Sequence[float]) -> dict[str, float]:
        """Return by how much one trial's `values` [k] violate each floor, in units of the scale: above 0 exactly if not
        better than the floor. Objectives without a floor are left out."""
        gains = self.gains(np.array([values]))[0]
        pairs = zip(self.names, self.floors, gains, strict=True)
        # A value at its floor is not better than it: its violation of 0 is made positive.
        return {name: -float(gain) if gain else 1e-12 for name, floor, gain in pairs if floor is not None}

    def feasible(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Return for each row [n] whether it is finite and better than every floor."""
        return pareto.feasible(values, self.floors, self.directions)

    def ranks(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return the index of each row's front [n] as `pareto.ranks` does, but counted from 1 if no row is feasible: 0
        is always the first front of feasible rows."""
        ranks = pareto.ranks(values, self.directions, self.floors)
        return ranks if self.feasible(values).any() else ranks + 1

    def front(self, values: ArrayLike) -> list[int]:
        """Return the row numbers of the first feasible front, best place first."""
        places = pareto.places(values, self.directions, self.floors)
        members = np.flatnonzero(self.ranks(values) == 0)
        return [int(row) for row in members[places[members].argsort()]]

    def knee(self, values: ArrayLike) -> int | None:
        """Return the row number of the front's knee (see `pareto.knee`), None without a front."""
        members = self.front(values)
        row = pareto.knee(self.gains(values)[members]) if members else None
        return None if row is None else members[row]

    def hypervolume(self, values: ArrayLike) -> float:
        """Return the volume between the floors and the feasible rows, in gains of the objectives that have a floor."""
        floored = [i for i, floor in enumerate(self.floors) if floor is not None]
        return pareto.hypervolume(self.gains(values)[self.feasible(values)][:, floored]) if floored else 0.0


def numeric_values(metrics: Mapping[str, object], names: Iterable[str]) -> list[float]:
    """Return the metrics `names` of a report, in that order; NaN for one that is missing or no number."""
    values = (metrics.get(name) for name in names)
    return [float(v) if isinstance(v, int | float | np.number) else math.nan for v in values]


def _floor(name: str, goal: Goal, start: Mapping[str, float]) -> float | None:
    if goal.floor_of_start is None:
        return goal.floor
    if name not in start:
        raise UserError(f"objectives.{name}.floor_of_start: the start model has no {name}: use floor")
    return goal.floor_of_start * start[name]


def objective_records(objectives: ObjectiveSpace) -> tuple[ObjectiveRecord, ...]:
    """Return one record per objective, in order."""
    parts = zip(objectives.names, objectives.directions, objectives.floors, strict=True)
    return tuple(ObjectiveRecord(metric=n, direction=d, floor=f) for n, d, f in parts)
