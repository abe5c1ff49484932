"""A run with one report: what methods without epochs of their own share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lethe.benchmarks.base import EvalSet, ReferenceValues
from lethe.config.run import Recipe
from lethe.evaluation.distributed import RankShard
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Costs, Outcome, Ranks
from transformers import PreTrainedModel


@dataclass
class SingleRun:
    """One run on one rank. Every rank holds the whole model, whatever the recipe's ZeRO stage."""

    recipe: Recipe
    context: Context
    truth: ReferenceValues | None
    ranks: Ranks
    costs: Costs = field(init=False)

    def __post_init__(self) -> None:
        self.costs = Costs(self.recipe.engine, self.ranks)

    def complete(self, model: PreTrainedModel, values: dict[str, Any], eval_set: EvalSet | None = None) -> Outcome:
        """Evaluate and report; `values` are the method's own, an `epoch` among them."""
        eval_set = eval_set or self.context.eval_set(self.recipe.evaluation)
        with self.costs.timed("evaluate"):
            shard = RankShard(self.ranks.rank, self.ranks.world, self.ranks.gather)
            result = self.context.task.evaluate(model, eval_set, self.recipe.evaluation, self.truth, shard, last=True)
        if not result.finite:  # metrics are finite whatever the model gives
            return self.ended("diverged", "the model's likelihoods are not finite")
        criterion = {} if result.forgotten is None else {"epochs_to_criterion": values["epoch"]}
        report = {**self.costs.report(), **values, **criterion, **result.metrics, "verdict": "complete"}
        return Outcome(report, result, model, template=eval_set.template)

    def ended(self, verdict: Literal["diverged", "infeasible"], reason: str) -> Outcome:
        """An end without a model, on every rank alike."""
        return Outcome({**self.costs.report(), "verdict": verdict, "reason": reason})
