"""A comparison: one study's arms, each searched alike and with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from lethe.config.base import OMITTED_AT_DEFAULT, Frozen, is_used
from lethe.config.loading import Raw, overlay
from lethe.config.objective import Objective
from lethe.config.space import Choice, Parameter, possible, variants
from lethe.errors import unknown_name

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=40)]
REFERENCE_METHODS = ("retrain", "input_guard")  # the oracle's own recipe; an instruction in front of the model


class Arm(Frozen):
    """The values of one arm, laid over the study's `run` and `space`; a value that it fixes is not searched in it."""

    run: dict[str, Any] = Field({}, description="over the study's `run`")
    space: dict[str, dict[str, Any]] = Field({}, description="over the study's `space`")


class Compare(Frozen):
    """A comparison of arms: each has `search.trials` trials with every seed, over those of the study's ranges that it
    reads."""

    arms: dict[Name, Arm] = Field(min_length=2)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2), min_length=1, description="every arm is searched with each"
    )
    layout: Literal["tofu", "tdec"] = Field("tofu", description="columns of the final table: SOUL's or LoKU's")
    pairs: dict[str, tuple[tuple[Name, Name], ...]] = Field(
        {},
        description="by the name of a claim its pairs [base, other]; FO-X with SO-X and Lion-X, SO-X with Released-X, X"
        " with X+Y are known already",
        json_schema_extra=OMITTED_AT_DEFAULT,
    )

    @model_validator(mode="after")
    def _pairs_of_arms(self) -> Self:
        for subject, pairs in self.pairs.items():
            for name in (name for pair in pairs for name in pair):
                if name not in self.arms:
                    raise unknown_name(f"arm in compare.pairs.{subject}", name, self.arms)
        return self


def arm_parts(run: Mapping[str, Any], space: Mapping[str, Parameter], arm: Arm) -> Raw:
    """Return `run` and `space` of an arm: the study's, without keys that the arm's variants do not read, and the arm's
    own on top. These stay even where they are not read, so that validating the arm's study refuses them."""
    over = {"run": arm.run, "space": arm.space}
    base = {"run": dict(run), "space": {key: p.model_dump(mode="json") for key, p in space.items()}}
    merged = overlay(base, over)
    is_read = _reader(merged["run"], merged["space"])

    def readable(family: str, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {field: value for field, value in given.items() if is_read(f"{family}.{field}")}

    fixed = {family: readable(family, given) for family, given in base["run"].items() if is_read(family)}
    return overlay({"run": fixed, "space": {key: p for key, p in base["space"].items() if is_read(key)}}, over)


def check_read(run: Raw, space: Mapping[str, Parameter], arms: list[tuple[Raw, Mapping[str, Parameter]]]) -> None:
    """Raise UserError for a key of the study that no arm reads: a misspelt one would be dropped without a word."""
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
    """Return a predicate of dotted keys: whether any recipe of an arm reads the key."""
    names = possible(run, {key: Choice(**given) for key, given in space.items() if key.endswith(".name")})
    ignored = [model.ignored_fields for name, model in Objective.registered.items() if name in names["objective"]]
    ignored_by_all = frozenset.intersection(*ignored) if ignored else frozenset()

    def read(key: str) -> bool:
        family, dot, field = key.partition(".")
        models = [model for name, model in variants(family).items() if name in names[family]] if family in names else []
        used = not dot or field == "name" or not models or any(is_used(m, run.get(family, {}), field) for m in models)
        return family not in ignored_by_all and used

    return read
