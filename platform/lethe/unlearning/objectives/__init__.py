"""Losses of the unlearning objectives: one module each, `lethe.unlearning.objectives.base` has the contract."""

from __future__ import annotations

from lethe.config.objective import AnyObjective
from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored

__all__ = ["LOSSES", "Counts", "Loss", "Scored", "make_loss"]


def make_loss(config: AnyObjective) -> Loss:
    """Return the loss that implements an objective. Raises LookupError for one without a loss, such as a `Method`."""
    return LOSSES.of(config)(config)
