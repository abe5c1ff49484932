"""Unlearning objectives: one file each, one contract."""

from __future__ import annotations

from lethe.config.objective import AnyObjective
from lethe.losses.contract import Counts, Loss, Scored
from lethe.losses.dpo import Dpo
from lethe.losses.grad_diff import GradDiff
from lethe.losses.gradient_ascent import GradientAscent
from lethe.losses.ihl import Ihl
from lethe.losses.kl import Kl
from lethe.losses.npo import Npo
from lethe.losses.preference_optimization import PreferenceOptimization
from lethe.losses.simnpo import SimNpo

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (GradientAscent, GradDiff, Kl, PreferenceOptimization, Npo, SimNpo, Dpo, Ihl)
}

__all__ = ["LOSSES", "Counts", "Loss", "Scored", "make_loss"]


def make_loss(config: AnyObjective) -> Loss:
    """The objective that a configuration names."""
    return LOSSES[config.name](config)
