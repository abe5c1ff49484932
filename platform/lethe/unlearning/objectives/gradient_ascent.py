"""Gradient ascent: away from the forget answers, and nothing to hold on to."""

from __future__ import annotations

from typing import ClassVar

from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import Loss


class GradientAscent(Loss):
    """L = -NLL(forget), unbounded below; retain rows are not forwarded. Jang et al. 2022, arXiv 2210.01504."""

    name: ClassVar[str] = "gradient_ascent"
    trains_on: ClassVar[tuple[RowKind, ...]] = (RowKind.FORGET,)
