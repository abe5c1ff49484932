"""Gradient difference: away from the forget answers, towards the retain answers."""

from __future__ import annotations

from typing import ClassVar

from lethe.unlearning.objectives.base import Loss


class GradDiff(Loss):
    """L_forget = -NLL(forget), unbounded below; L_retain = NLL(retain). Maini et al. 2024, arXiv 2401.06121."""

    name: ClassVar[str] = "grad_diff"
