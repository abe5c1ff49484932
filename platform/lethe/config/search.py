"""How a study searches: the sampler and its budget, and the objectives with their floors.

When a trial ends before its budget, and when a study does.

Front members, run again with fresh seeds before they are registered.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from lethe.config.addresses import check_database, without_password
from lethe.config.base import Frozen
from lethe.config.metrics import Direction
from pydantic import Field, field_validator, model_validator


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


class NoStopping(Frozen):
    """Every trial has its whole budget."""

    name: Literal["none"] = "none"


class MoAsha(Frozen):
    """Successive halving under several objectives, stopping type (Schmucker et al. 2021, arXiv 2106.12639).

    Rungs are at grace, grace * eta, grace * eta^2, ... A trial that reaches one goes on if it is among the best 1/eta
    of those that did before it.
    """

    name: Literal["mo_asha"] = "mo_asha"
    resource: Literal["epoch", "optimizer_step"] = Field("epoch", description="what rungs count")
    grace: int = Field(1, ge=1, description="no trial is stopped before")
    eta: int = Field(2, ge=2)
    metrics: tuple[str, ...] | None = Field(None, min_length=1, description="compared at a rung; none: the objectives")


AnyStopping = Annotated[NoStopping | MoAsha, Field(discriminator="name")]


class Stop(Frozen):
    """What ends a study before its trials are used up, whichever comes first; trials that run are finished."""

    no_growth: int | None = Field(None, ge=1, description="trials in which the hypervolume has not grown")
    minutes: float | None = Field(None, gt=0, description="of a session's search; in a comparison, of each arm's")
    hours: float | None = Field(None, gt=0, description="likewise")

    @property
    def seconds(self) -> float | None:
        """The shorter of `minutes` and `hours`, if any is given."""
        given = [60 * self.minutes] if self.minutes else []
        return min(given + ([3600 * self.hours] if self.hours else []), default=None)


class Confirm(Frozen):
    """The best of many noisy trials looks better than it is; its runs with other seeds do not. Their means say which
    members stay on the front."""

    seeds: int = Field(3, ge=2, le=100, description="runs of each member, with the seeds after its own")
