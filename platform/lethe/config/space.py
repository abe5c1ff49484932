"""The search space: parameters with ranges, and the recipe that a choice of their values gives.

The space is conditional, and no study writes the conditions down: a parameter is active in a trial iff the variant that
the trial chose (by `optimizer.name`, `adapter.name`, ...) has the field and uses it (`lethe.config.base.only_where`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from lethe.config.base import Frozen, field_condition, is_used, nested
from lethe.config.component import is_kind
from lethe.config.error_messages import must
from lethe.config.objective import Objective
from lethe.config.run import Recipe

Scalar = bool | int | float | str | None


class _Range(Frozen):
    low: float = Field(description="lowest value")
    high: float = Field(description="highest value")
    log: bool = Field(False, description="sample the logarithm uniformly")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, given low {self.low}")
        return self

    def ends(self) -> dict[str, Scalar]:
        """Return the values that the field must accept, by the key of the range that sets them."""
        return {"low": self.low, "high": self.high}


class FloatRange(_Range):
    """A real number in [low, high]."""

    type: Literal["float"] = "float"

    def ends(self) -> dict[str, Scalar]:
        """Return both ends, and a value between them that a field for whole numbers refuses."""
        golden = self.low + 0.381966 * (self.high - self.low)
        return {**super().ends(), "between": golden}


class IntRange(_Range):
    """A whole number in [low, high], both included."""

    type: Literal["int"] = "int"
    low: int = Field(description="lowest value")
    high: int = Field(description="highest value")


class Choice(Frozen):
    """One of a few values, in no order."""

    type: Literal["choice"] = "choice"
    choices: tuple[Any, ...] = Field(min_length=1, description="numbers, texts, true, false or null")

    @field_validator("choices")
    @classmethod
    def _distinct_scalars(cls, choices: tuple[Any, ...]) -> tuple[Scalar, ...]:
        for value in choices:
            if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(f"{value!r} is not a finite number, text, true, false or null")
        if len({repr(value) for value in choices}) < len(choices):
            raise ValueError("a choice is named twice")
        return choices

    def ends(self) -> dict[str, Scalar]:
        """Return every choice by the key that says it."""
        return {f"choices[{i}]": value for i, value in enumerate(self.choices)}


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]


def variants(family: str) -> dict[str, type[BaseModel]]:
    """Return the models that a field of Recipe can have, by name; under "" where there is one form, {} for a plain
    value."""
    field = Recipe.model_fields[family]
    if is_kind(field.annotation):
        return dict(field.annotation.registered)
    options = get_args(field.annotation) if field.discriminator else (field.annotation,)
    models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return {str(model.model_fields["name"].default) if field.discriminator else "": model for model in models}


def default_name(family: str) -> str:
    """Return the name of the variant that a recipe has by default, "" for a family without names."""
    return getattr(Recipe.model_fields[family].default, "name", "")


def refusal(model: type[BaseModel], given: dict[str, Any], field: str) -> str | None:
    """Return why `model` refuses `given[field]`, or None. Errors of other fields and across fields do not count."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["loc"][:1] == (field,):
                return must(detail["msg"])
    return None


Suggest = Callable[[str, Parameter], Scalar]


def possible(run: Mapping[str, Any], space: Mapping[str, Parameter]) -> dict[str, list[str]]:
    """Return the names of the variants that a trial can have, by family: [""] where there is one form, [] for plain
    values."""
    names: dict[str, list[str]] = {}
    for family in Recipe.model_fields:
        searched = space.get(f"{family}.name")
        if "" in variants(family):
            names[family] = [""]
        elif variants(family) and isinstance(searched, Choice):
            names[family] = [str(name) for name in searched.choices]
        elif variants(family):
            names[family] = [run.get(family, {}).get("name", default_name(family))]
        else:
            names[family] = []
    return names


def assemble(run: Mapping[str, Any], space: Mapping[str, Parameter], suggest: Suggest) -> dict[str, Any]:
    """Return the fields of a recipe, not validated, from the study's fixed values and those that `suggest` gives.

    Names are suggested first, the objective's before all others, then active parameters in alphabetical order but for
    those that others depend on, which come before these, so that equal studies ask alike. Fixed values that the chosen
    variant lacks or does not use are dropped.
    """
    fields = copy.deepcopy(dict(run))
    names = {family: given[0] for family, given in possible(run, space).items() if given}
    models: dict[str, type[BaseModel]] = {}
    ignored: frozenset[str] = frozenset()
    for family in ("objective", *sorted(names.keys() - {"objective"})):
        if family in ignored:
            continue
        name = str(suggest(f"{family}.name", space[f"{family}.name"])) if f"{family}.name" in space else names[family]
        fields[family] = {**fields.get(family, {}), **({"name": name} if name else {})}
        models[family] = variants(family)[name]
        if family == "objective":
            ignored = Objective.registered[name].ignored_fields
    for key in _in_order(space, models):
        family, _, field = key.partition(".")
        if family in ignored:
            continue
        if not field:
            fields[family] = suggest(key, space[key])
        elif field != "name" and is_used(models[family], fields[family], field):
            fields[family].update(nested(field, suggest(key, space[key]), fields[family]))
    for family, model in models.items():
        fields[family] = {key: value for key, value in fields[family].items() if is_used(model, fields[family], key)}
    return {family: value for family, value in fields.items() if family not in ignored}


def _in_order(space: Mapping[str, Parameter], models: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return the keys of `space` in alphabetical order, but each behind those that its field depends on."""
    keys: list[str] = []
    for key in sorted(space):
        family, _, field = key.partition(".")
        needed = (
            field_condition(models[family], field) if family in models and field in models[family].model_fields else ()
        )
        keys += [f"{family}.{other}" for other in sorted(needed) if f"{family}.{other}" in space] + [key]
    return list(dict.fromkeys(keys))


def build_recipe(run: Mapping[str, Any], space: Mapping[str, Parameter], suggest: Suggest) -> Recipe:
    """Return the recipe with the fixed values of `run`, and `suggest(name, parameter)` for every parameter of `space`
    that is active in this trial: first the names of variants, then the rest in the order of their names.

    Raises pydantic's ValidationError for values that break a rule across fields; all have been suggested by then.
    """
    return Recipe.model_validate(assemble(run, space, suggest))


def rebuild(run: Mapping[str, Any], space: Mapping[str, Parameter], params: Mapping[str, Scalar]) -> Recipe:
    """Return the recipe that the suggested values `params` made. Raises KeyError where `params` lacks a value that is
    asked for, ValidationError as `build_recipe`."""
    return build_recipe(run, space, lambda name, _: params[name])


def resolved(run: Mapping[str, Any], space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return every fixed value that a trial can have, defaults included, by family and variant: a study's identity
    covers these."""
    values: dict[str, Any] = {}
    for family, names in possible(run, space).items():
        if not names:
            values[family] = run.get(family, Recipe.model_fields[family].default)
        for name in names:
            model = variants(family)[name]
            given = {key: value for key, value in run.get(family, {}).items() if key in model.model_fields}
            full = {**model.model_construct().model_dump(mode="json"), **given}
            values.setdefault(family, {})[name] = {k: v for k, v in full.items() if f"{family}.{k}" not in space}
    return values
