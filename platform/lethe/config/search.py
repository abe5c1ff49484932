"""How a study searches: the sampler and its budget, and the objectives with their floors."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lethe.config.addresses import check_database, without_password
from lethe.config.base import Frozen
from lethe.config.metrics import Direction


class Goal(Frozen):
    """One objective. A trial that is not better than the floor is infeasible: the start model must not win.

    For `minimize` the floor is the largest useless value, for `maximize` the smallest.
    """

    direction: Direction
    floor: float | None = Field(None, description="as an absolute value")
    floor_of_start: float | None = Field(None, description="as a multiple of the start model's value")

    @model_validator(mode="after")
    def _one_floor(self) -> Self:
        if self.floor is not None and self.floor_of_start is not None:
            raise ValueError("has both floor and floor_of_start: give one")
        return self


class Search(Frozen):
    """The sampler (all are Optuna's), how many trials it may propose, and what it knows before the first."""

    sampler: Literal["tpe", "nsga2", "random", "gp"] = "tpe"
    trials: int = Field(12, ge=1, description="finished, stopped and failed trials count")
    seed: int = Field(0, ge=0)
    startup_trials: int = Field(6, ge=1, description="tpe, gp: random proposals before the model of past trials")
    population: int = Field(12, ge=2, description="nsga2: trials in a generation")
    order: Literal["free", "deterministic"] = Field(
        "free", description="deterministic: what a trial sees of others does not depend on who was faster"
    )
    first: tuple[dict[str, Any], ...] = Field((), description="points to try first: values by key of the space")
    warm_start: str | None = Field(None, min_length=1, description="id of an earlier study to learn from")
    storage: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="where Optuna keeps the study: an SQLAlchemy URL, or journal:PATH; none: SQLite in the storage root",
    )

    @field_validator("storage")
    @classmethod
    def _address(cls, storage: str | None) -> str | None:
        if storage and not storage.startswith("journal:"):
            check_database(storage)
        return storage

    def kept(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """What is written down and printed has no password."""
        shown = self.storage and without_password(self.storage)
        return {key: shown if key == "storage" else value for key, value in super().kept(dumped).items()}
