"""Losses of the unlearning objectives: one module each, `lethe.unlearning.objectives.base` has the contract."""

from lethe.unlearning.objectives.base import LOSSES, Counts, Loss, Scored, make_loss

__all__ = ["LOSSES", "Counts", "Loss", "Scored", "make_loss"]
