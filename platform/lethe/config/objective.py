"""What the forget rows and the retain rows are trained towards: L = L_forget + gamma * L_retain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lethe.config.base import Frozen


class Objective(Frozen):
    """Every objective weighs the retain rows' mean token loss by `gamma`."""

    gamma: float = Field(1.0, ge=0, description="weight of the retain loss")


class GradDiff(Objective):
    """Gradient difference: minus the forget rows' mean token loss."""

    name: Literal["grad_diff"] = "grad_diff"


class Npo(Objective):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868)."""

    name: Literal["npo"] = "npo"
    beta: float = Field(0.1, gt=0, description="inverse temperature; small values approach gradient ascent")
    reduction: Literal["sequence_sum", "token_mean"] = Field(
        "sequence_sum", description="sequence_sum as published; token_mean as SOUL released it"
    )


class Ihl(Objective):
    """Inverted hinge loss (LoKU, Cha et al. 2024, arXiv 2408.06621)."""

    name: Literal["ihl"] = "ihl"


AnyObjective = Annotated[GradDiff | Npo | Ihl, Field(discriminator="name")]
