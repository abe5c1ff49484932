"""A study's objectives of reference: floors and scales, fixed before the first trial and stored with the study.

Which finished trials are on the Pareto front, and which of them have a name.

What fresh seeds say of a front: means and spreads, and who stays on it. Values alone, no models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from lethe.config.base import Frozen
from lethe.config.metrics import Direction
from lethe.config.search import Goal
from lethe.errors import UserError
from lethe.records import Confirmation, ObjectiveRecord, TrialRecord
from lethe.search import pareto
from lethe.search.pareto import Floats, dominates
from numpy.typing import ArrayLike


class ObjectiveSpace(Frozen):
    """Per objective, in the study's order. A gain is how far a value is better than `origins`, in units of `scales`."""

    names: tuple[str, ...]
    directions: tuple[Direction, ...]
    floors: tuple[float | None, ...]
    origins: tuple[float, ...]
    scales: tuple[float, ...]
    start: dict[str, float]

    @classmethod
    def from_goals(cls, goals: Mapping[str, Goal], start: Mapping[str, float]) -> Self:
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
        return numeric_values(metrics, self.names)

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
        row = pareto.knee(self.gains(values)[members]) if members else None
        return None if row is None else members[row]

    def hypervolume(self, values: ArrayLike) -> float:
        """Volume of gains over the floors, of the feasible rows, in the objectives that have a floor."""
        floored = [i for i, floor in enumerate(self.floors) if floor is not None]
        return pareto.hypervolume(self.gains(values)[self.feasible(values)][:, floored]) if floored else 0.0


def numeric_values(metrics: Mapping[str, object], names: Iterable[str]) -> list[float]:
    """These values of a report, in order; NaN for one that is missing or no number."""
    found = (metrics.get(name) for name in names)
    return [float(v) if isinstance(v, int | float | np.number) else math.nan for v in found]


def _floor(name: str, goal: Goal, start: Mapping[str, float]) -> float | None:
    if goal.floor_of_start is None:
        return goal.floor
    if name not in start:
        raise UserError(f"objectives.{name}.floor_of_start: the start model has no {name}: use floor")
    return goal.floor_of_start * start[name]


Trials = tuple[TrialRecord, ...]


def objective_records(objectives: ObjectiveSpace) -> tuple[ObjectiveRecord, ...]:
    """The objectives as records."""
    parts = zip(objectives.names, objectives.directions, objectives.floors, strict=True)
    return tuple(ObjectiveRecord(metric=n, direction=d, floor=f) for n, d, f in parts)


def mark_front(trials: Trials, objectives: ObjectiveSpace) -> Trials:
    """The same trials with `pareto_rank` (0: front) and `feasible` set; only complete, finite trials have a rank.
    Where both are right already it is the same object."""
    whole = _whole(trials, objectives)
    values = _values(whole, objectives)
    marks: dict[int, tuple[int, bool]] = {}
    if whole:
        pairs = zip(objectives.ranks(values).tolist(), objectives.feasible(values).tolist(), strict=True)
        marks = {t.number: pair for t, pair in zip(whole, pairs, strict=True)}
    return tuple(_marked(t, *marks.get(t.number, (None, False))) for t in trials)


def _marked(trial: TrialRecord, rank: int | None, feasible: bool) -> TrialRecord:
    if (trial.pareto_rank, trial.feasible) == (rank, feasible):
        return trial
    return trial.model_copy(update={"pareto_rank": rank, "feasible": feasible})


def front_aliases(trials: Trials, objectives: ObjectiveSpace) -> dict[str, int]:
    """Aliases of front members by trial number: `knee`, and `best-<metric>` for every objective."""
    front = [t for t in trials if t.on_front]
    if not front:
        return {}
    values = _values(front, objectives)
    gains = objectives.gains(values)
    names = {f"best-{name}": front[int(gains[:, i].argmax())].number for i, name in enumerate(objectives.names)}
    knee = objectives.knee(values)
    return names if knee is None else {"knee": front[knee].number, **names}


def representative_trial(trials: Trials, objectives: ObjectiveSpace) -> int | None:
    """The number of the trial that stands for all of them: the knee, or without a front the complete one with the
    smallest worst violation of a floor."""
    if "knee" in (names := front_aliases(trials, objectives)):
        return names["knee"]
    whole = _whole(trials, objectives)
    worst = [max(objectives.violations(row).values(), default=0.0) for row in _values(whole, objectives)]
    return whole[int(np.argmin(worst))].number if whole else None


def front_hypervolume(trials: Trials, objectives: ObjectiveSpace) -> float:
    """Volume between front and floors in floor-normalised objectives; 1 would be the oracle's forgetting at the
    start model's utility."""
    whole = _whole(trials, objectives)
    return float(objectives.hypervolume(_values(whole, objectives))) if whole else 0.0


def _whole(trials: Trials, objectives: ObjectiveSpace) -> list[TrialRecord]:
    return [
        t for t in trials if t.verdict == "complete" and all(math.isfinite(v) for v in objectives.values(t.metrics))
    ]


def _values(trials: list[TrialRecord], objectives: ObjectiveSpace) -> np.ndarray:
    return np.array([objectives.values(t.metrics) for t in trials], dtype=float).reshape(-1, len(objectives.names))


_Trials = tuple[TrialRecord, ...]


def with_confirmations(
    trials: _Trials, runs: Mapping[int, Sequence[TrialRecord]], objectives: ObjectiveSpace
) -> _Trials:
    """The same trials; those with `runs`, by trial number, have a `confirmation`.

    The run that the search found is left out of the means: it was chosen for its values, so they are too good.
    """
    found = {number: _averaged(tuple(repeats), objectives) for number, repeats in runs.items()}
    means = {number: objectives.values(c.mean) for number, c in found.items() if not c.reason}
    for number, values in means.items():
        reason = _why_not(number, means, objectives)
        found[number] = found[number].model_copy(update={"confirmed": not reason, "reason": reason})
    return tuple(
        trial.model_copy(update={"confirmation": found[trial.number]}) if trial.number in found else trial
        for trial in trials
    )


def aliases_of_means(trials: _Trials, objectives: ObjectiveSpace) -> dict[str, int]:
    """The aliases of the confirmed members by their means, as `name_front` gives them; {} where none is."""
    return front_aliases(_means(trials), objectives)


def hypervolume_of_means(trials: _Trials, objectives: ObjectiveSpace) -> float:
    """Of what is left of the front; 0 where nothing is."""
    return front_hypervolume(_means(trials), objectives)


def _means(trials: _Trials) -> _Trials:
    members = [(trial, trial.confirmation) for trial in trials if trial.confirmation and trial.confirmation.confirmed]
    return tuple(trial.model_copy(update={"metrics": c.mean}) for trial, c in members)


def _averaged(runs: _Trials, objectives: ObjectiveSpace) -> Confirmation:
    """Means and sample deviations of the complete runs."""
    values = np.array([objectives.values(run.metrics) for run in runs if run.verdict == "complete"], dtype=float)
    broken = next((run for run in runs if run.verdict != "complete"), None)
    reason = f"the run with seed {broken.params['seed']}: {broken.verdict}" if broken else ""
    if not len(values):
        return Confirmation(runs=runs, reason=reason or "no run")
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(objectives.names), np.nan)
    means = dict(zip(objectives.names, values.mean(axis=0).tolist(), strict=True))
    return Confirmation(
        runs=runs, mean=means, spread=dict(zip(objectives.names, spread.tolist(), strict=True)), reason=reason
    )


def _why_not(number: int, means: Mapping[int, list[float]], objectives: ObjectiveSpace) -> str:
    """Why a member's mean is not on the front of all members' means; "" where it is."""
    if not objectives.feasible([means[number]])[0]:
        below = [name for name, by in objectives.violations(means[number]).items() if by > 0]
        return f"mean {' and '.join(below)} not better than the floor" if below else "its means are not numbers"
    feasible = {other: values for other, values in means.items() if objectives.feasible([values])[0]}
    beaten = [n for n, values in feasible.items() if dominates(values, means[number], objectives.directions)]
    return f"the mean of trial {beaten[0]} is better" if beaten else ""
