"""Unlearning objectives: one file each, one contract."""

from __future__ import annotations

from lethe.config.objective import AnyObjective
from lethe.losses.contract import Counts, Loss, Scored
from lethe.losses.grad_diff import GradDiff
from lethe.losses.ihl import Ihl
from lethe.losses.npo import Npo

LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (GradDiff, Npo, Ihl)}

__all__ = ["LOSSES", "Counts", "Loss", "Scored", "make_loss"]


def make_loss(config: AnyObjective) -> Loss:
    """The objective that a configuration names."""
    return LOSSES[config.name](config)
