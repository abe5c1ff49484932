"""Settings at the edge: chosen values so near to an end of their range that better ones may lie beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

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
    """A chosen trial's setting that lies at an end of what was searched."""

    arm: str
    seed: int
    trial: int
    key: str
    value: Scalar
    searched: str
    end: End


def edges(record: StudyRecord, of: Iterable[Arm]) -> list[Edge]:
    """Of every arm's chosen trials, in the order of arms, seeds and the study's space."""
    return [
        Edge(arm.name, each.seed, each.chosen.number, key, each.chosen.params[key], _words(parameter), end)
        for arm in of
        for each in arm.seeds
        if each.chosen
        for key, parameter in searched(record, arm.name).items()
        if key in each.chosen.params and (end := edge(each.chosen.params[key], parameter))
    ]


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


def gathered(found: Iterable[Edge]) -> list[str]:
    """One line per arm, setting and end: `SO-GA clip_threshold at the high end of 0.01 to 1,000 (seeds 0, 2)`."""
    by: dict[tuple[str, str, str, str], list[int]] = {}
    for one in found:
        by.setdefault((one.arm, one.key, one.end, one.searched), []).append(one.seed)
    return [
        f"{arm} {key} at the {end} end of {span} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
        for (arm, key, end, span), seeds in by.items()
    ]


def _words(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(map(setting, parameter.choices))
    return f"{setting(parameter.low)} to {setting(parameter.high)}{', log' if parameter.log else ''}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _adapter() -> TypeAdapter[Parameter]:
    return TypeAdapter(Parameter)
