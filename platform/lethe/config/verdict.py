"""The criteria by which a finished model counts as having forgotten: bounds on its metrics."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lethe.config.base import Frozen

Reference = Literal["start", "oracle"]

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_RELATIVE = re.compile(rf"(?:({_NUMBER})\s*\*?\s*)?(start|oracle)(?:\s*([+-])\s*({_NUMBER}))?")


@dataclass(frozen=True)
class Bound:
    """The number `times` x the reference model's value of the metric + `plus`; `plus` alone without a reference."""

    of: Reference | None
    times: float
    plus: float

    @classmethod
    def parse(cls, text: str | float) -> Bound:
        """Return the bound that a number, `oracle + 0.05` or `0.9 start` says. Raises ValueError for anything else."""
        given = str(text).strip()
        if re.fullmatch(rf"-?{_NUMBER}", given) and math.isfinite(float(given)):
            return cls(None, 1.0, float(given))
        found = _RELATIVE.fullmatch(given)
        if found is None or not all(math.isfinite(float(number or 0)) for number in found.group(1, 4)):
            raise ValueError(f"must be a number, or like 'oracle + 0.05' or '0.9 start', given {text!r}")
        times, of, sign, plus = found.groups()
        amount = float(plus or 0) * (-1 if sign == "-" else 1)
        return cls("start" if of == "start" else "oracle", float(times or 1), amount)

    def value(self, reference: float) -> float:
        """Return the number, given the reference model's value of the metric."""
        return self.plus if self.of is None else self.times * reference + self.plus


class Criterion(Frozen):
    """Bounds on one metric of a model. `instead`: criteria on other metrics, one of which may hold in its place."""

    at_least: float | str | None = Field(None, description="a number, or like `0.9 start` or `oracle + 0.05`")
    at_most: float | str | None = Field(None, description="likewise")
    below: float | str | None = Field(None, description="likewise")
    instead: dict[str, Criterion] = Field({}, description="other metrics, one of which may hold in its place")

    @field_validator("at_least", "at_most", "below")
    @classmethod
    def _is_bound(cls, text: float | str | None) -> float | str | None:
        if text is not None:
            Bound.parse(text)
        return text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.bounds():
            raise ValueError("has no bound: choose from at_least, at_most, below")
        return self

    @property
    def is_kept_share(self) -> bool:
        """True for a criterion that asks for at least a share of the start model's value, and nothing else."""
        bounds = self.bounds()
        return bounds.keys() == {"at_least"} and bounds["at_least"].of == "start"

    def bounds(self) -> dict[str, Bound]:
        """Return the bounds that are given, by `at_least`, `at_most` and `below`."""
        given = {name: getattr(self, name) for name in ("at_least", "at_most", "below")}
        return {name: Bound.parse(text) for name, text in given.items() if text is not None}
