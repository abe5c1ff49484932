"""Methods without a training loss: one module each, with the contract of `lethe.unlearning.methods.base.Method`."""

from __future__ import annotations

from lethe.config.objective import AnyObjective
from lethe.config.objective import Method as MethodConfig
from lethe.unlearning.methods.base import METHODS, Method
from lethe.unlearning.trainer import unlearn

__all__ = ["METHODS", "Method", "method_of"]


def method_of(objective: AnyObjective) -> Method:
    """Return the function that pursues an objective: the method itself, or the training loop for a loss."""
    return METHODS.of(objective) if isinstance(objective, MethodConfig) else unlearn
