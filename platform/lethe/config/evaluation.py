"""What is measured on an unlearned model, and how often."""

from __future__ import annotations

from pydantic import Field

from lethe.config.base import Frozen


class LmEval(Frozen):
    """Tasks of lm-evaluation-harness (the extra `lm-eval`): each gives the metric `lm_eval_TASK`, which is the first of
    its metrics that is better when higher. Its own prompts, no chat template. `path`: see lethe.data.task_files."""

    tasks: tuple[str, ...] = Field(min_length=1)
    path: str | None = Field(None, min_length=1, description="a folder with task files of your own, read as data")
    limit: int | None = Field(None, ge=1, description="documents per task; none: all")


class Evaluation(Frozen):
    """Rows are the first `max_rows` of each split; generation is greedy."""

    every: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always evaluated")
    max_rows: int | None = Field(None, ge=2, description="rows per split; none: all")
    max_new_tokens: int = Field(200, ge=1)
    token_budget: int = Field(8192, ge=64, description="padded tokens in one forward pass")
    lm_eval: LmEval | None = None
    gradnorm: bool = Field(False, description="mia_gradnorm: one backward pass a forget or holdout row, dear")
