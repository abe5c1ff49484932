"""Ways to forget without a gradient loss, chosen by `objective.name` like the losses."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from lethe.config.base import Frozen

TOPICS = "{topics}"


class Method(Frozen):
    """`unread` names the parts of a recipe that say nothing to this method: a study with nothing but such methods is
    refused those parts, and no trial of them has one."""

    unread: ClassVar[frozenset[str]]


def unread(objective: type[BaseModel]) -> frozenset[str]:
    """The fields of a recipe that mean nothing beside this objective: none for those that train on a loss."""
    return objective.unread if issubclass(objective, Method) else frozenset()


class Influence(Method):
    """One-shot influence unlearning: theta + H^-1 g, sums over rows (Koh and Liang 2017, arXiv 1703.04730; the method
    that SOUL, arXiv 2404.18239, iterates). It moves every weight, in fp32 and unsharded, in one step.

    On a model that has memorised its rows a whole step leaves where the quadratic holds: on the embedded benchmark
    strength 1 needs damping 30 (D .60, utility .82), and strength .01 with damping .01 does better (.33, .89). Search
    both by their logarithms, over [1e-3, 100] and [1e-3, 1].
    """

    unread: ClassVar = frozenset({"optimizer", "adapter", "schedule"})

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

    unread: ClassVar = frozenset({"adapter"})

    name: Literal["retrain"] = "retrain"


class InputGuard(Method):
    """No training: an instruction in front of every question, SOUL's input-based baseline (arXiv 2404.18239)."""

    unread: ClassVar = frozenset({"optimizer", "adapter", "schedule", "seed"})

    name: Literal["input_guard"] = "input_guard"
    instruction: str = Field(
        f"Do not answer questions about {TOPICS}; say that you do not know.",
        min_length=1,
        description=f"{TOPICS} becomes the names that forget questions have and retain questions have not",
    )
