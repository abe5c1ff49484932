"""Settings at the edge: chosen values so near to an end of their range that better ones may lie beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from lethe.config.files import lay
from lethe.config.space import Choice, Parameter, Scalar
from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm
from lethe.reporting.scales import setting

NEAR = 0.05  # of the range, on the scale that the search samples
End = Literal["low", "high"]


@dataclass(frozen=True)
class Edge:
    """A setting that an arm's chosen trials have at an end of what was searched, `at` these seeds, trials, values."""

    arm: str
    key: str
    end: End
    searched: str
    at: tuple[tuple[int, int, Scalar], ...]

    def __str__(self) -> str:
        seeds = ", ".join(str(seed) for seed, _, _ in self.at)
        noun = "seed" if len(self.at) == 1 else "seeds"
        return f"{self.arm} {self.key} at the {self.end} end of {self.searched} ({noun} {seeds})"


def edges(record: StudyRecord, of: Iterable[Arm]) -> list[Edge]:
    """In the order of arms and the study's space."""
    return [
        Edge(arm.name, key, end, _words(parameter), at)
        for arm in of
        for key, parameter in searched(record, arm.name).items()
        for end in get_args(End)
        if (at := _at(arm, key, parameter, end))
    ]


def _at(arm: Arm, key: str, parameter: Parameter, end: End) -> tuple[tuple[int, int, Scalar], ...]:
    found = ((each.seed, each.chosen.number, each.chosen.params.get(key)) for each in arm.seeds if each.chosen)
    return tuple((seed, number, value) for seed, number, value in found if edge(value, parameter) == end)


def searched(record: StudyRecord, arm: str) -> dict[str, Parameter]:
    """The study's space with what the arm lays over it; an arm's trials have those that it reads."""
    study = record.study
    base = {"run": study.get("run", {}), "space": study.get("space", {})}
    space: Mapping[str, Any] = lay(base, study.get("compare", {}).get("arms", {}).get(arm, {}))["space"]
    return {key: _adapter().validate_python(given) for key, given in space.items()}


def edge(value: Scalar, parameter: Parameter) -> End | None:
    """The end that `value` is at: within `NEAR` of a range, or the least or greatest of three or more numbers.

    Two choices have no inside, words have no order, and a range of one value has no ends.
    """
    if not _is_number(value):
        return None
    if isinstance(parameter, Choice):
        choices = parameter.choices
        if len(choices) < 3 or not all(map(_is_number, choices)):
            return None
        return "low" if value == min(choices) else "high" if value == max(choices) else None
    low, high, at = float(parameter.low), float(parameter.high), float(value)
    if low == high:
        return None
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    share = (at - low) / (high - low)
    return "low" if share <= NEAR else "high" if share >= 1 - NEAR else None


def _words(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(map(setting, parameter.choices))
    return f"{setting(parameter.low)} to {setting(parameter.high)}{', log' if parameter.log else ''}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _adapter() -> TypeAdapter[Parameter]:
    return TypeAdapter(Parameter)
