"""What is measured on an unlearned model, and how often."""

from __future__ import annotations

from pydantic import Field

from lethe.config.base import Frozen


class Evaluation(Frozen):
    """Rows are the first `max_rows` of each split; generation is greedy."""

    every: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always evaluated")
    max_rows: int | None = Field(None, ge=2, description="rows per split; none: all")
    max_new_tokens: int = Field(200, ge=1)
    token_budget: int = Field(8192, ge=64, description="padded tokens in one forward pass")
    gradnorm: bool = Field(False, description="mia_gradnorm: one backward pass a forget or holdout row, dear")
