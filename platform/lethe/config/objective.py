"""Ways to forget without a gradient loss, chosen by `objective.name` like the losses.

What the forget rows and the retain rows are trained towards: L = L_forget + gamma * L_retain.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from lethe.config.base import Frozen
from pydantic import BaseModel, Field

TOPICS = "{topics}"


class Method(Frozen):
    """`unread` names the parts of a recipe that say nothing to this method: a study with nothing but such methods is
    refused those parts, and no trial of them has one."""

    ignored_fields: ClassVar[frozenset[str]]


def ignored_fields(objective: type[BaseModel]) -> frozenset[str]:
    """The fields of a recipe that mean nothing beside this objective: none for those that train on a loss."""
    return objective.ignored_fields if issubclass(objective, Method) else frozenset()


class Influence(Method):
    """One-shot influence unlearning: theta + H^-1 g, sums over rows (Koh and Liang 2017, arXiv 1703.04730; the method
    that SOUL, arXiv 2404.18239, iterates). It moves every weight, in fp32 and unsharded, in one step.

    On a model that has memorised its rows a whole step leaves where the quadratic holds: on the embedded benchmark
    strength 1 needs damping 30 (D .60, utility .82), and strength .01 with damping .01 does better (.33, .89). Search
    both by their logarithms, over [1e-3, 100] and [1e-3, 1].
    """

    ignored_fields: ClassVar = frozenset({"optimizer", "adapter", "schedule"})

    name: Literal["influence"] = "influence"
    hessian: Literal["gnb", "empirical_fisher"] = Field(
        "gnb", description="diagonal from labels that the model samples, or from the rows' own"
    )
    damping: float = Field(30.0, gt=0, description="added to the diagonal, relative to its mean")
    strength: float = Field(1.0, gt=0, description="factor on the step; 1: what influence functions say")


class Retrain(Method):
    """Exact unlearning: what the start model was made from, trained again without the forget rows.

    The embedded family begins at its random weights and has its own optimizer and schedule; a pretrained model begins
    at `model.base` and takes the run's, where an epoch is one pass over the retain rows. Every weight is trained.
    """

    ignored_fields: ClassVar = frozenset({"adapter"})

    name: Literal["retrain"] = "retrain"


class InputGuard(Method):
    """No training: an instruction in front of every question, SOUL's input-based baseline (arXiv 2404.18239)."""

    ignored_fields: ClassVar = frozenset({"optimizer", "adapter", "schedule", "seed"})

    name: Literal["input_guard"] = "input_guard"
    instruction: str = Field(
        f"Do not answer questions about {TOPICS}; say that you do not know.",
        min_length=1,
        description=f"{TOPICS} becomes the names that forget questions have and retain questions have not",
    )


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
