"""What the forget rows and the retain rows are trained towards: L = L_forget + gamma * L_retain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lethe.config.base import Frozen
from lethe.config.method import Influence, InputGuard, Retrain


class Objective(Frozen):
    """An objective over the forget rows."""


class WithRetain(Objective):
    """One that weighs a loss over the retain rows by `gamma`."""

    gamma: float = Field(1.0, ge=0, description="weight of the retain loss")


class WithRefusals(WithRetain):
    """One that answers forget questions with refusals: the benchmark needs some."""


class GradientAscent(Objective):
    """Minus the forget rows' mean token loss, and nothing else: unbounded below."""

    name: Literal["gradient_ascent"] = "gradient_ascent"


class GradDiff(WithRetain):
    """Gradient difference: minus the forget rows' mean token loss."""

    name: Literal["grad_diff"] = "grad_diff"


class Kl(WithRetain):
    """Gradient difference whose retain loss is the divergence from the start model's predictions."""

    name: Literal["kl"] = "kl"


class PreferenceOptimization(WithRefusals):
    """The mean token loss of a refusal of each forget question, drawn anew in every epoch."""

    name: Literal["preference_optimization"] = "preference_optimization"


class Npo(WithRetain):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868)."""

    name: Literal["npo"] = "npo"
    beta: float = Field(0.1, gt=0, description="inverse temperature; small values approach gradient ascent")
    reduction: Literal["sequence_sum", "token_mean"] = Field(
        "sequence_sum", description="sequence_sum as published; token_mean as SOUL released it"
    )


class SimNpo(WithRetain):
    """Simple NPO, without a reference (Fan et al. 2024, arXiv 2410.07163). Published for TOFU: beta 2.5 to 4.5."""

    name: Literal["simnpo"] = "simnpo"
    beta: float = Field(2.5, gt=0, description="inverse temperature of the mean token log-probability")
    delta: float = Field(0.0, ge=0, description="reward margin: the paper's gamma")


class Dpo(WithRefusals):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): a refusal over the forget answer."""

    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, description="inverse temperature")


class Ihl(WithRetain):
    """Inverted hinge loss (LoKU, Cha et al. 2024, arXiv 2408.06621)."""

    name: Literal["ihl"] = "ihl"


AnyObjective = Annotated[
    GradientAscent
    | GradDiff
    | Kl
    | PreferenceOptimization
    | Npo
    | SimNpo
    | Dpo
    | Ihl
    | Influence
    | Retrain
    | InputGuard,
    Field(discriminator="name"),
]
