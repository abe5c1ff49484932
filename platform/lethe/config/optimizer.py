"""How a step is taken: AdamW, or Sophia with its diagonal Hessian."""

from __future__ import annotations

from typing import Annotated, Literal

from lethe.config.base import Frozen, only_where
from pydantic import Field

Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Frozen):
    """What every optimizer has."""

    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)


class AdamW(Optimizer):
    """First order: AdamW (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)


SAMPLED = only_where(hessian="gnb")


class Sophia(Optimizer):
    """Second order: Sophia-G (Liu et al. 2023, arXiv 2305.14342), the optimizer of SOUL (arXiv 2404.18239).

    `gnb` is the published Gauss-Newton-Bartlett Hessian: refreshed from labels that the model samples, as the fields
    `hessian_*` say. `squared_gradient` is what SOUL released (with betas .9, .95): every step's own gradient, squared;
    it takes no extra pass and has none of these fields.
    """

    name: Literal["sophia"] = "sophia"
    betas: tuple[Beta, Beta] = (0.965, 0.99)
    eps: float = Field(1e-12, gt=0)
    clip_threshold: float = Field(0.04, gt=0, description="rho: a step is clip(m / (rho h), -1, 1)")
    hessian: Literal["gnb", "squared_gradient"] = "gnb"
    hessian_interval: int = Field(
        10, ge=1, description="k: optimizer steps between Hessian refreshes", json_schema_extra=SAMPLED
    )
    hessian_data: Literal["forget", "retain", "both"] = Field(
        "both",
        description="rows that labels are sampled on; both: all that the objective trains on",
        json_schema_extra=SAMPLED,
    )
    hessian_warm_start: bool = Field(
        True, description="refresh before step 1; as published: false", json_schema_extra=SAMPLED
    )
    hessian_bias_correction: bool = Field(
        True, description="divide h by 1 - b2^refreshes; as published: false", json_schema_extra=SAMPLED
    )


AnyOptimizer = Annotated[AdamW | Sophia, Field(discriminator="name")]
