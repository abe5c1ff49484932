"""When a trial ends before its budget, and when a study does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lethe.config.base import Frozen


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
