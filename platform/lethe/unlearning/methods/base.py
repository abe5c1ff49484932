"""The contract of a method, and a run with one report: what methods without epochs of their own share.

A method is a function with the signature `Method`, decorated with `METHODS.implements(CONFIGURATION)` in a module of
this package. It has the contract of `lethe.unlearning.trainer.unlearn`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedModel

from lethe.benchmarks.base import EvalSet, ReferenceValues
from lethe.config.component import Implementations
from lethe.config.run import Recipe
from lethe.evaluation.distributed import RankShard
from lethe.records import FinalReport, Metrics
from lethe.unlearning.checkpoint import Checkpoints
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Costs, Outcome, Ranks, ReportFunction

Method = Callable[[Recipe, Context, ReferenceValues | None, ReportFunction, Ranks, Checkpoints], Outcome]

METHODS: Implementations[Method] = Implementations("lethe.unlearning.methods")


@dataclass
class SingleRun:
    """One run on one rank. Every rank holds the whole model, whatever the recipe's ZeRO stage."""

    recipe: Recipe
    context: Context
    reference: ReferenceValues | None
    ranks: Ranks
    costs: Costs = field(init=False)

    def __post_init__(self) -> None:
        self.costs = Costs(self.recipe.engine, self.ranks)

    def complete(self, model: PreTrainedModel, values: Metrics, eval_set: EvalSet | None = None) -> Outcome:
        """Evaluate `model` and return the outcome, whose report has `values`, the method's own with an `epoch` among
        them. The verdict is diverged where the model's likelihoods are not finite."""
        eval_set = eval_set or self.context.eval_set(self.recipe.evaluation)
        with self.costs.timed("evaluate"):
            shard = RankShard(self.ranks.rank, self.ranks.world, self.ranks.gather)
            result = self.context.task.evaluate(
                model, eval_set, self.recipe.evaluation, self.reference, shard, last=True
            )
        if not result.finite:  # metrics are finite whatever the model gives
            return self.ended("diverged", "the model's likelihoods are not finite")
        criterion = {} if result.forgotten is None else {"epochs_to_criterion": values["epoch"]}
        values = {**self.costs.report(), **values, **criterion, **result.metrics}
        return Outcome(FinalReport(verdict="complete", values=values), result, model, template=eval_set.template)

    def ended(self, verdict: Literal["diverged", "infeasible"], reason: str) -> Outcome:
        """Return an outcome without a model; every rank calls this alike."""
        return Outcome(FinalReport(verdict=verdict, reason=reason, values=self.costs.report()))
