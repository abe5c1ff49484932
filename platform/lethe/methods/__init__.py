"""Ways to forget that are no gradient loss: one file each, with the contract of `lethe.training.unlearn.unlearn`."""

from __future__ import annotations

from collections.abc import Callable

from lethe.config.objective import AnyObjective
from lethe.config.run import Recipe
from lethe.evaluation.task import AnyTruth
from lethe.methods.influence import influence
from lethe.methods.input_guard import input_guard
from lethe.methods.retrain import retrain
from lethe.training.checkpoint import Checkpoints
from lethe.training.context import Context
from lethe.training.outcome import Outcome, Ranks, Report
from lethe.training.unlearn import unlearn

__all__ = ["METHODS", "method_of"]

Method = Callable[[Recipe, Context, AnyTruth, Report, Ranks, Checkpoints], Outcome]

METHODS: dict[str, Method] = {"influence": influence, "retrain": retrain, "input_guard": input_guard}


def method_of(objective: AnyObjective) -> Method:
    """How an objective is pursued: every loss by the one training loop."""
    return METHODS.get(objective.name, unlearn)
