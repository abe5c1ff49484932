"""Ways to forget that are no gradient loss: one file each, with the contract of `lethe.unlearning.trainer.unlearn`."""

from __future__ import annotations

from collections.abc import Callable

from lethe.benchmarks.base import ReferenceValues
from lethe.config.objective import AnyObjective
from lethe.config.run import Recipe
from lethe.unlearning.checkpoint import Checkpoints
from lethe.unlearning.context import Context
from lethe.unlearning.methods.influence import influence
from lethe.unlearning.methods.input_guard import input_guard
from lethe.unlearning.methods.retrain import retrain
from lethe.unlearning.outcome import Outcome, Ranks, ReportFunction
from lethe.unlearning.trainer import unlearn

__all__ = ["METHODS", "method_of"]

Method = Callable[[Recipe, Context, ReferenceValues | None, ReportFunction, Ranks, Checkpoints], Outcome]

METHODS: dict[str, Method] = {"influence": influence, "retrain": retrain, "input_guard": input_guard}


def method_of(objective: AnyObjective) -> Method:
    """How an objective is pursued: every loss by the one training loop."""
    return METHODS.get(objective.name, unlearn)
