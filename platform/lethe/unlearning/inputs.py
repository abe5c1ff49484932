"""The inputs of a run on this rank: the model that it trains, the rows, and their scores under the start model."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from lethe.config.adapter import FullParameters
from lethe.config.run import Recipe
from lethe.data.batches import RowKind, StepRows, total_epochs
from lethe.unlearning.context import Context
from lethe.unlearning.objectives.base import Loss


def base_of(recipe: Recipe, context: Context) -> PreTrainedModel:
    """Return the model that the run trains or puts its adapters on: sharded, shared or its own."""
    if recipe.engine.stage == 3:
        return context.model_to_shard()
    return context.fresh_model() if isinstance(recipe.adapter, FullParameters) else context.shared_model()


def rows_of(recipe: Recipe, context: Context, loss: Loss) -> StepRows:
    """Return the rows that the run trains on. Raises UserError where the loss needs refusals and the benchmark has
    none."""
    epochs = total_epochs(len(context.forget), recipe.schedule)
    other = recipe.objective.needs_alternatives
    refusals = context.refusals(recipe.seed, epochs, alternatives=other) if RowKind.REFUSAL in loss.trains_on else None
    return StepRows(context.forget, context.retain, refusals)


def start_log_probs_of(
    recipe: Recipe, context: Context, loss: Loss, start: nn.Module | None = None
) -> dict[RowKind, torch.Tensor]:
    """Return S0 of the rows that the run trains on, by kind, where the loss needs it; `start` as in `Context`."""
    if not loss.needs_start_log_probs:
        return {}
    epochs, budget = total_epochs(len(context.forget), recipe.schedule), recipe.evaluation.token_budget
    log_probs = {RowKind.FORGET: context.start_log_probs(budget, start)}
    if RowKind.REFUSAL in loss.trains_on:
        other = recipe.objective.needs_alternatives
        log_probs[RowKind.REFUSAL] = context.refusal_start_log_probs(
            recipe.seed, epochs, budget, start, alternatives=other
        )
    return log_probs
