"""Gradient difference: away from the forget answers, towards the retain answers."""

from __future__ import annotations

from lethe.config.objective import GradDiff as GradDiffConfig
from lethe.unlearning.objectives.base import LOSSES, Loss


@LOSSES.implements(GradDiffConfig)
class GradDiff(Loss):
    """L_forget = -NLL(forget), unbounded below; L_retain = NLL(retain). Maini et al. 2024, arXiv 2401.06121."""
