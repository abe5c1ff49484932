"""Whether a study can search as it says: points to try first, rungs, an order that can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lethe.config.benchmark import AnyBenchmark
from lethe.config.metrics import METRICS_OF
from lethe.config.search import Goal, Search
from lethe.config.space import Choice, FloatRange, Parameter
from lethe.config.stopping import AnyStopping, MoAsha, Stop
from lethe.errors import BadInput, choices

MEASURED = ("seconds", "peak_memory_mb")  # by a clock or by the system: never twice the same


def check_first(first: tuple[Mapping[str, Any], ...], space: Mapping[str, Parameter]) -> None:
    """Refuse points with keys or values that the search could not propose itself."""
    for number, point in enumerate(first):
        where = f"search.first[{number}]"
        if not point:
            raise BadInput(f"{where}: is empty: choose from {', '.join(sorted(space))}")
        for key, value in point.items():
            if key not in space:
                raise choices(f"key in {where}", key, space)
            if reason := outside(space[key], value):
                raise BadInput(f"{where}.{key}: {reason}, given {value!r}")
        if point in first[:number]:
            raise BadInput(f"{where}: is the same point as search.first[{first.index(point)}]: take one of them out")


def outside(parameter: Parameter, value: Any) -> str | None:
    """Why a parameter cannot have this value, or None."""
    if isinstance(parameter, Choice):
        known = any(type(value) is type(choice) and value == choice for choice in parameter.choices)
        return None if known else f"must be one of {', '.join(map(str, parameter.choices))}"
    kind = (int, float) if isinstance(parameter, FloatRange) else int
    if isinstance(value, bool) or not isinstance(value, kind) or not parameter.low <= value <= parameter.high:
        number = "a number" if isinstance(parameter, FloatRange) else "a whole number"
        return f"must be {number} from {parameter.low:g} to {parameter.high:g}"
    return None


def check_rungs(stopping: AnyStopping, benchmark: AnyBenchmark) -> None:
    """Refuse rungs over metrics that no report has."""
    known = METRICS_OF[benchmark.name]
    for name in _compared(stopping):
        if name not in known:
            raise choices("metric in early_stopping.metrics", name, known)


def _compared(stopping: AnyStopping) -> tuple[str, ...]:
    return (stopping.metrics or ()) if isinstance(stopping, MoAsha) else ()


def check_repeatable(search: Search, goals: Mapping[str, Goal], stopping: AnyStopping, stop: Stop) -> None:
    """Refuse a deterministic order where what decides is a clock."""
    if search.order == "free":
        return
    for name in (*goals, *_compared(stopping)):
        if name in MEASURED:
            raise BadInput(f"search.order: {name} is measured, so a study over it cannot be repeated: use free")
    if stop.seconds is not None:
        raise BadInput("search.order: a study that ends by the clock cannot be repeated: use free, or stop.no_growth")


def check_learning(search: Search) -> None:
    """Refuse to start warm with a sampler that looks at its own trials only, or at none."""
    if search.warm_start and search.sampler in ("random", "nsga2"):
        raise BadInput(f"search.warm_start: {search.sampler} does not learn from another study's trials: use tpe or gp")


def check_comparison(search: Search) -> None:
    """Refuse what would give one arm of a comparison an advantage over the others."""
    for key in ("first", "warm_start"):
        if getattr(search, key):
            raise BadInput(f"search.{key}: a comparison searches every arm alike: take it out")
