"""How a step is taken: AdamW, or Sophia with its diagonal Hessian."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lethe.config.base import Frozen

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


class Sophia(Optimizer):
    """Second order: Sophia-G (Liu et al. 2023, arXiv 2305.14342), Hessian by Gauss-Newton-Bartlett."""

    name: Literal["sophia"] = "sophia"
    betas: tuple[Beta, Beta] = (0.965, 0.99)
    eps: float = Field(1e-12, gt=0)
    clip_threshold: float = Field(0.04, gt=0, description="rho: a step is clip(m / (rho h), -1, 1)")
    hessian_interval: int = Field(10, ge=1, description="k: optimizer steps between Hessian refreshes")
    hessian_data: Literal["forget", "retain", "both"] = "both"
    hessian_warm_start: bool = Field(True, description="refresh before step 1; as published: false")
    hessian_bias_correction: bool = Field(True, description="divide h by 1 - b2^refreshes; as published: false")


AnyOptimizer = Annotated[AdamW | Sophia, Field(discriminator="name")]
