"""A finished model as an audit finds it, and what is left in it of the forgotten rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lethe.benchmarks.base import AnyTask, ReferenceValues
from lethe.benchmarks.measurement import task_of
from lethe.config.run import Recipe
from lethe.data.rows import Row
from lethe.data.template import Template
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.leaks import Leaks, Questions, ask
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Ranks
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Audited:
    """`model` is whole on every rank and plain, its adapter merged; an audit changes copies of it only.

    `template`: how it is asked; `recipe`: how it was trained, for engine, evaluation and seed; `metrics`: what the
    study measured on it.
    """

    model: PreTrainedModel
    template: Template
    context: Context
    recipe: Recipe
    truth: ReferenceValues | None
    metrics: dict[str, float]
    ranks: Ranks

    @property
    def shard(self) -> RankShard:
        """This rank's part of an evaluation of the whole model."""
        return RankShard(self.ranks.rank, self.ranks.world, self.ranks.gather)

    @cached_property
    def task(self) -> AnyTask:
        """The benchmark as this model is asked."""
        if self.template is self.context.template:
            return self.context.task
        return task_of(self.context.benchmark, self.template, self.model)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric of the study, as its trials were measured."""
        config = self.recipe.evaluation
        plain = self.task is self.context.task
        evals = self.context.eval_set(config) if plain else self.task.eval_set(config)
        return self.task.evaluate(model, evals, config, self.truth, self.shard, last=True).metrics

    # Questions and answers

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The forget rows that the study asks for; none where the benchmark has no questions."""
        return self.context.benchmark.asked(self.recipe.evaluation)

    def ask(self, questions: Questions, model: nn.Module | None = None, shard: RankShard | None = None) -> Leaks:
        """Of the finished model, unless another is given."""
        return ask(model or self.model, questions, self.template, self.recipe.evaluation, shard or self.shard)

    @cached_property
    def plainly(self) -> Leaks:
        """The forget rows, asked as the study asks them."""
        return self.ask(Questions.of(self.template, self.rows))

    # Forget rows of any kind

    def leaks(self, model: nn.Module, chosen: Sequence[int], shard: RankShard | None = None) -> dict[str, float]:
        """Measure on `model` what is left of the `chosen` ones of the evaluated forget rows."""
        return self.task.leaks(model, chosen, self.recipe.evaluation, self.truth, shard or self.shard)
