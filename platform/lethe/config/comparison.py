"""A comparison: one study's arms, each searched alike and with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from lethe.config.base import Frozen, is_used
from lethe.config.loading import Raw, overlay
from lethe.config.objective import ignored_fields
from lethe.config.space import Choice, Parameter, possible, variants
from lethe.errors import unknown_name
from pydantic import Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class Arm(Frozen):
    """What one arm lays over the study's `run` and `space`; a value that it fixes is not searched in it."""

    run: dict[str, Any] = {}
    space: dict[str, dict[str, Any]] = {}


class Compare(Frozen):
    """Every arm has `search.trials` trials with every seed, over the study's ranges as far as they concern it."""

    arms: dict[Name, Arm] = Field(min_length=2)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    layout: Literal["tofu", "tdec"] = Field("tofu", description="columns of the final table: SOUL's or LoKU's")


def arm_parts(run: Mapping[str, Any], space: Mapping[str, Parameter], arm: Arm) -> Raw:
    """The arm's own `run` and `space`: the study's, less what the arm's variants do not read, with the arm on top.
    What the arm says itself stays, for the study to refuse."""
    over = {"run": arm.run, "space": arm.space}
    base = {"run": dict(run), "space": {key: p.model_dump(mode="json") for key, p in space.items()}}
    laid = overlay(base, over)
    read = _reader(laid["run"], laid["space"])

    def kept(family: str, given: Any) -> Any:
        parts = given if isinstance(given, dict) else None
        return given if parts is None else {field: v for field, v in parts.items() if read(f"{family}.{field}")}

    fixed = {family: kept(family, given) for family, given in base["run"].items() if read(family)}
    return overlay({"run": fixed, "space": {key: p for key, p in base["space"].items() if read(key)}}, over)


def check_read(run: Raw, space: Mapping[str, Parameter], arms: list[tuple[Raw, Mapping[str, Parameter]]]) -> None:
    """Refuse what the study says and no arm reads: a misspelt key would be dropped from every arm in silence."""
    known = {key for fixed, searched in arms for key in (*_leaves(fixed), *searched)}
    for section, keys in (("run", _leaves(run)), ("space", space)):
        for key in keys:
            if key not in known:
                raise unknown_name(f"{section} key", key, known)


def _leaves(run: Raw) -> list[str]:
    return [
        f"{family}.{field}" if field else family
        for family, given in run.items()
        for field in (given if isinstance(given, dict) else ("",))
    ]


def _reader(run: Raw, space: Raw) -> Callable[[str], bool]:
    """Whether any recipe of an arm reads a dotted key."""
    names = possible(run, {key: Choice(**given) for key, given in space.items() if key.endswith(".name")})
    objectives = [model for name, model in variants("objective").items() if name in names["objective"]]
    silent = frozenset.intersection(*map(ignored_fields, objectives)) if objectives else frozenset()

    def read(key: str) -> bool:
        family, dot, field = key.partition(".")
        models = [model for name, model in variants(family).items() if name in names[family]] if family in names else []
        used = not dot or field == "name" or not models or any(is_used(m, run.get(family, {}), field) for m in models)
        return family not in silent and used

    return read
