"""A finished model as an audit finds it, and what is left in it of the forgotten rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from lethe.audits.leaks import Leaks, Questions, ask
from lethe.benchmarks.base import AnyTruth, TdecTask, TofuTask, make_task
from lethe.benchmarks.tdec.evaluation import TdecSet
from lethe.config.run import Recipe
from lethe.data.rows import Row
from lethe.data.template import Template
from lethe.evaluation.distributed import RankShard
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
    truth: AnyTruth
    metrics: dict[str, float]
    ranks: Ranks

    @property
    def shard(self) -> RankShard:
        """This rank's part of an evaluation of the whole model."""
        return RankShard(self.ranks.rank, self.ranks.world, self.ranks.gather)

    @cached_property
    def task(self) -> TofuTask | TdecTask:
        """The benchmark as this model is asked."""
        if self.template is self.context.template:
            return self.context.task
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        return make_task(self.context.benchmark, self.context.assets.benchmark, self.template, vocabulary)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric of the study, as its trials were measured."""
        config = self.recipe.evaluation
        plain = self.task is self.context.task
        evals = self.context.eval_set(config) if plain else self.task.eval_set(config)
        return self.task.evaluate(model, evals, config, self.truth, self.shard, last=True).metrics

    # Questions and answers

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The forget rows that the study evaluates; not for sequences."""
        return self.context.benchmark.forget_eval[: self.recipe.evaluation.max_rows]

    def ask(self, questions: Questions, model: nn.Module | None = None, shard: RankShard | None = None) -> Leaks:
        """Of the finished model, unless another is given."""
        return ask(model or self.model, questions, self.template, self.recipe.evaluation, shard or self.shard)

    @cached_property
    def plainly(self) -> Leaks:
        """The forget rows, asked as the study asks them."""
        return self.ask(Questions.of(self.template, self.rows))

    # Sequences

    def extracted(self, model: nn.Module, chosen: Sequence[int], shard: RankShard | None = None) -> dict[str, float]:
        """MA and EL of some of the forget sequences; nothing else is measured but the perplexity, which is quick."""
        assert isinstance(self.task, TdecTask)
        config, evals = self.recipe.evaluation, self.task.eval_set(self.recipe.evaluation)
        found = self.task.evaluate(model, _only(evals, chosen), config, self.truth, shard or self.shard, last=True)
        return {name: found.metrics[name] for name in ("memorization_accuracy", "extraction_likelihood")}


def _only(evals: TdecSet, chosen: Sequence[int]) -> TdecSet:
    none = np.zeros(0, dtype=np.int64)
    return replace(evals, forget=evals.forget[list(chosen)], turns=(), prompts=(), questions=(), options=(), asked=none)
