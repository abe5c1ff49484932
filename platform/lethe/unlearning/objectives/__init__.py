"""Unlearning objectives: one file each, one contract."""

from __future__ import annotations

from lethe.config.objective import AnyObjective
from lethe.unlearning.objectives.base import Counts, Loss, Scored
from lethe.unlearning.objectives.dpo import Dpo
from lethe.unlearning.objectives.grad_diff import GradDiff
from lethe.unlearning.objectives.gradient_ascent import GradientAscent
from lethe.unlearning.objectives.ihl import Ihl
from lethe.unlearning.objectives.kl import Kl
from lethe.unlearning.objectives.npo import Npo
from lethe.unlearning.objectives.preference_optimization import PreferenceOptimization
from lethe.unlearning.objectives.simnpo import SimNpo

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (GradientAscent, GradDiff, Kl, PreferenceOptimization, Npo, SimNpo, Dpo, Ihl)
}

__all__ = ["LOSSES", "Counts", "Loss", "Scored", "make_loss"]


def make_loss(config: AnyObjective) -> Loss:
    """The objective that a configuration names."""
    return LOSSES[config.name](config)
