"""What a search may vary: named parameters with ranges, and which variant of a run has which of them.

The space is conditional without saying so: a parameter is active in a trial iff the variant that the trial chose (by
`optimizer.name`, `adapter.name`, ...) has the field and uses it (`lethe.config.base.needs`).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from lethe.config.base import Frozen
from lethe.config.messages import must
from lethe.config.run import Recipe

Scalar = bool | int | float | str | None


class _Range(Frozen):
    low: float
    high: float
    log: bool = Field(False, description="sample the logarithm uniformly")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, given low {self.low}")
        return self

    def ends(self) -> dict[str, Scalar]:
        """Values that must all be possible; the inner one finds a field that takes whole numbers only."""
        return {"low": self.low, "high": self.high}


class FloatRange(_Range):
    """A real number in [low, high]."""

    type: Literal["float"] = "float"

    def ends(self) -> dict[str, Scalar]:
        golden = self.low + 0.381966 * (self.high - self.low)
        return {**super().ends(), "between": golden}


class IntRange(_Range):
    """A whole number in [low, high], both included."""

    type: Literal["int"] = "int"
    low: int
    high: int


class Choice(Frozen):
    """One of a few values, in no order."""

    type: Literal["choice"] = "choice"
    choices: tuple[Any, ...] = Field(min_length=1)

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
        """Every choice, by where it stands."""
        return {f"choices[{i}]": value for i, value in enumerate(self.choices)}


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]


@cache
def variants(family: str) -> dict[str, type[BaseModel]]:
    """The forms a field of Recipe can take, by name; a family with one form has it under ""; a plain value has none."""
    field = Recipe.model_fields[family]
    options = get_args(field.annotation) if field.discriminator else (field.annotation,)
    models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return {str(model.model_fields["name"].default) if field.discriminator else "": model for model in models}


def default_name(family: str) -> str:
    """The variant that a recipe has if nothing is said."""
    return getattr(Recipe.model_fields[family].default, "name", "")


def refusal(model: type[BaseModel], given: dict[str, Any], field: str) -> str | None:
    """Why `model` refuses `given[field]`, or None. What other fields and rules across fields say is not asked."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["loc"][:1] == (field,):
                return must(detail["msg"])
    return None
