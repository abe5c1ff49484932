"""The search of a study: the objectives with their floors, the sampler and its budget, early stopping, the end of the
study, and the confirmation of its front.

To add a sampler, define its configuration here and implement it in `lethe.search.samplers`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, field_validator, model_validator
from pydantic_core import PydanticKnownError

from lethe.config.addresses import check_database, without_password
from lethe.config.base import Frozen
from lethe.config.component import Component
from lethe.config.metrics import Direction


class Goal(Frozen):
    """An objective of the search with its floor. A trial that is not better than the floor is infeasible, so that the
    start model never wins. A direction alone stands for a goal without a floor.

    For `minimize` the floor is the smallest value that is infeasible, for `maximize` the largest.
    """

    direction: Direction = Field(description="what is better")
    floor: float | None = Field(None, description="as an absolute value")
    floor_of_start: float | None = Field(None, description="as a multiple of the start model's value")

    @model_validator(mode="before")
    @classmethod
    def _direction_alone(cls, given: Any) -> Any:
        return {"direction": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_floor(self) -> Self:
        if self.floor is not None and self.floor_of_start is not None:
            raise ValueError("has both floor and floor_of_start: give one")
        return self


class Sampler(Component):
    """The kind of all samplers. Their settings are fields of `Search`.

    `learns_from_others`: proposals depend on trials of an earlier study that a warm start adds.
    """

    registered: ClassVar[dict[str, type[Sampler]]]
    learns_from_others: ClassVar[bool] = False


class Tpe(Sampler):
    """Tree-structured Parzen estimator, multivariate and grouped."""

    learns_from_others: ClassVar[bool] = True
    name: Literal["tpe"] = "tpe"


class NsgaII(Sampler):
    """NSGA-II (Deb et al. 2002), which proposes from the generations of its own trials."""

    name: Literal["nsga2"] = "nsga2"


class Random(Sampler):
    """Independent random proposals."""

    name: Literal["random"] = "random"


class Gp(Sampler):
    """Bayesian optimisation with a Gaussian process."""

    learns_from_others: ClassVar[bool] = True
    name: Literal["gp"] = "gp"


def _sampler_name(given: Any) -> str:
    if isinstance(given, str) and given in Sampler.registered:
        return given
    names = [repr(name) for name in Sampler.registered]
    raise PydanticKnownError("literal_error", {"expected": f"{', '.join(names[:-1])} or {names[-1]}"})


class Search(Frozen):
    """The sampler, how many trials it may propose, and its knowledge before the first trial."""

    sampler: Annotated[str, PlainValidator(_sampler_name)] = Field(
        "tpe",
        description="what proposes trials, of Optuna's",
        json_schema_extra=lambda schema: schema.update(enum=list(Sampler.registered)),
    )
    trials: int = Field(12, ge=1, description="finished, stopped and failed trials count")
    seed: int = Field(0, ge=0, description="of the proposals")
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
        description="where Optuna keeps the study: an SQLAlchemy URL or journal:PATH; none: SQLite in the storage root",
    )

    @field_validator("storage")
    @classmethod
    def _address(cls, storage: str | None) -> str | None:
        if storage and not storage.startswith("journal:"):
            check_database(storage)
        return storage

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without the password in `storage`: it is written down and printed."""
        shown = self.storage and without_password(self.storage)
        return {key: shown if key == "storage" else value for key, value in super().canonical_fields(dumped).items()}


class NoStopping(Frozen):
    """Every trial has its whole budget."""

    name: Literal["none"] = "none"


class MoAsha(Frozen):
    """Successive halving under several objectives, stopping type (Schmucker et al. 2021, arXiv 2106.12639).

    Rungs are at grace, grace * eta, grace * eta^2, ... A trial that reaches one goes on if it is among the best 1/eta
    of those that have reached it, itself included, or the best in an objective.
    """

    name: Literal["mo_asha"] = "mo_asha"
    resource: Literal["epoch", "optimizer_step"] = Field("epoch", description="what rungs count")
    grace: int = Field(1, ge=1, description="the first rung, in epochs or steps")
    eta: int = Field(2, ge=2, description="the best 1/eta of a rung go on")
    metrics: tuple[str, ...] | None = Field(None, min_length=1, description="compared at a rung; none: the objectives")


class AreaHalving(Frozen):
    """Successive halving, stopping type, by one number: how much is forgotten times how much is kept.

    At a rung, every metric counts as a share of its best value there: what is to be maximised from 0, what is to be
    minimised from its worst value there. The means of the two directions are multiplied. A trial goes on if it is among
    the best 1/eta of those that reached the rung, or the best.
    """

    name: Literal["area_halving"] = "area_halving"
    resource: Literal["epoch", "optimizer_step"] = Field("epoch", description="what rungs count")
    rungs: tuple[int, ...] = Field(
        (1, 2), min_length=1, description="epochs or steps at which trials are compared, ascending"
    )
    eta: int = Field(3, ge=2, description="the best 1/eta of a rung go on")
    metrics: tuple[str, ...] | None = Field(None, min_length=1, description="compared at a rung; none: the objectives")

    @field_validator("rungs")
    @classmethod
    def _ascending(cls, rungs: tuple[int, ...]) -> tuple[int, ...]:
        if list(rungs) != sorted({rung for rung in rungs if rung > 0}):
            raise ValueError("must be ascending whole numbers, each at least 1")
        return rungs


STOPPINGS = (NoStopping, MoAsha, AreaHalving)

AnyHalving = MoAsha | AreaHalving
AnyStopping = Annotated[NoStopping | AnyHalving, Field(discriminator="name")]


class Stop(Frozen):
    """Conditions that end a study before its trials are used up, whichever comes first; running trials are finished."""

    no_growth: int | None = Field(None, ge=1, description="trials in which the hypervolume has not grown")
    minutes: float | None = Field(None, gt=0, description="of a session's search; in a comparison, of each arm's")
    hours: float | None = Field(None, gt=0, description="likewise")

    @property
    def seconds(self) -> float | None:
        """Return the shorter of `minutes` and `hours` in seconds; None where neither is given."""
        given = [60 * self.minutes] if self.minutes else []
        return min(given + ([3600 * self.hours] if self.hours else []), default=None)


OF_AN_ARM = 5  # members of an arm's front that are run again and audited at most


class Confirm(Frozen):
    """Repeats the front's members with fresh seeds before they are registered: the means decide which ones stay on the
    front, since the best of many noisy trials looks better than it is."""

    seeds: int = Field(
        3, ge=2, le=100, description="runs of each member with fresh seeds: after its own, in a comparison after all"
    )
    members: int | None = Field(
        None,
        ge=1,
        description="most members of a front that run again and are audited, spread over it; none: all, in a "
        f"comparison {OF_AN_ARM} of each arm",
    )
