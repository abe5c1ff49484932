"""Gradient ascent: away from the forget answers, without a retain loss."""

from __future__ import annotations

from lethe.config.objective import GradientAscent as GradientAscentConfig
from lethe.unlearning.objectives.base import LOSSES, Loss


@LOSSES.implements(GradientAscentConfig)
class GradientAscent(Loss):
    """L = -NLL(forget), unbounded below; retain rows are not forwarded. Jang et al. 2022, arXiv 2210.01504."""
