"""Where the settings of chosen trials lie in their ranges: near an end, better ones may lie beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeGuard, get_args

from pydantic import TypeAdapter

from lethe.config.space import Choice, Parameter, Scalar
from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm, arm_parts
from lethe.reporting.scales import format_setting

BOUNDARY = 0.05  # share of a range that counts as its end, on the scale that the search samples
End = Literal["low", "high"]


@dataclass(frozen=True)
class BoundaryHit:
    """A setting of an arm's chosen trials at one end of its range; `at`: (seed, trial, value) of each."""

    arm: str
    key: str
    end: End
    searched: str
    at: tuple[tuple[int, int, Scalar], ...]

    def __str__(self) -> str:
        seeds = ", ".join(str(seed) for seed, _, _ in self.at)
        noun = "seed" if len(self.at) == 1 else "seeds"
        return f"{self.arm} {self.key} at the {self.end} end of {self.searched} ({noun} {seeds})"


@dataclass(frozen=True)
class ChosenSettings:
    """A setting of an arm's chosen trials; `at`: (seed, trial, value, share) of each, the share of `range_share`."""

    arm: str
    key: str
    searched: str
    ends: tuple[str, ...]
    at: tuple[tuple[int, int, Scalar, float | None], ...]


def chosen_settings(record: StudyRecord, arms: Iterable[Arm]) -> list[ChosenSettings]:
    """Return every searched setting of every arm's chosen trials; `ends`: those that a seed's value is at."""
    found = []
    for arm in arms:
        for key, parameter in arm_space(record, arm.name).items():
            chosen = [(seed.seed, seed.chosen) for seed in arm.seeds if seed.chosen and key in seed.chosen.params]
            at = tuple((seed, t.number, t.params[key], range_share(t.params[key], parameter)) for seed, t in chosen)
            ends = {end for _, _, value, _ in at if (end := boundary_end(value, parameter))}
            if at:
                found.append(ChosenSettings(arm.name, key, _describe_range(parameter), tuple(sorted(ends)), at))
    return found


def boundary_hits(record: StudyRecord, arms: Iterable[Arm]) -> list[BoundaryHit]:
    """Return the settings at an end of their range, in the order of the arms and of the study's space."""
    return [
        BoundaryHit(arm.name, key, end, _describe_range(parameter), at)
        for arm in arms
        for key, parameter in arm_space(record, arm.name).items()
        for end in get_args(End)
        if (at := _chosen_at(arm, key, parameter, end))
    ]


def _chosen_at(arm: Arm, key: str, parameter: Parameter, end: End) -> tuple[tuple[int, int, Scalar], ...]:
    settings = ((seed.seed, seed.chosen.number, seed.chosen.params.get(key)) for seed in arm.seeds if seed.chosen)
    return tuple((seed, number, value) for seed, number, value in settings if boundary_end(value, parameter) == end)


def arm_space(record: StudyRecord, arm: str) -> dict[str, Parameter]:
    """Return the study's space with the arm's laid over it; an arm's trials have those parameters that they read."""
    space: Mapping[str, Any] = arm_parts(record, arm)["space"]
    return {key: _parameter_adapter().validate_python(parameter) for key, parameter in space.items()}


@cache
def _parameter_adapter() -> TypeAdapter[Parameter]:
    return TypeAdapter(Parameter)


def boundary_end(value: Scalar, parameter: Parameter) -> End | None:
    """Return the end that `value` is at: within `BOUNDARY` of a range, or the least or greatest of three or more
    numbers. None for any other value: two choices have no inside, words no order, a range of one value no ends."""
    if not _is_number(value):
        return None
    if isinstance(parameter, Choice):
        numbers = [choice for choice in parameter.choices if _is_number(choice)]
        if len(parameter.choices) < 3 or len(numbers) < len(parameter.choices):
            return None
        return "low" if value == min(numbers) else "high" if value == max(numbers) else None
    share = range_share(value, parameter)
    if share is None:
        return None
    return "low" if share <= BOUNDARY else "high" if share >= 1 - BOUNDARY else None


def range_share(value: Scalar, parameter: Parameter) -> float | None:
    """Return where `value` lies in its range on the scale that is searched: 0 at the low and 1 at the high end.

    None for a choice, for what is no number, and in a range of one value.
    """
    if isinstance(parameter, Choice) or not _is_number(value) or parameter.low == parameter.high:
        return None
    low, high, at = float(parameter.low), float(parameter.high), float(value)
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)


def _describe_range(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(map(format_setting, parameter.choices))
    return f"{format_setting(parameter.low)} to {format_setting(parameter.high)}{', log' if parameter.log else ''}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
