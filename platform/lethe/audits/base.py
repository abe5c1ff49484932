"""The contract of an audit, and the finished model that it receives.

An audit is a function of an `Audited` and its configuration that yields one record for each of the configuration's
`variants()`. It is decorated with `AUDITS.implements(CONFIGURATION)` in a module of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lethe.benchmarks.base import AnyTask, ReferenceValues
from lethe.benchmarks.measurement import task_of
from lethe.config.component import Implementations
from lethe.config.run import Recipe
from lethe.data.template import Encoded, Row, Template
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.leaks import Leaks, Questions, ask
from lethe.evaluation.likelihood import score
from lethe.records import AuditRecord, Metrics
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Ranks

BeforeAndAfter = tuple[Metrics, Metrics]
AuditFunction = Callable[["Audited", Any], Iterator[AuditRecord]]

AUDITS: Implementations[AuditFunction] = Implementations("lethe.audits")


@dataclass(frozen=True)
class Audited:
    """A finished model with its study. `model` is whole on every rank and plain, its adapter merged; an audit changes
    copies of it only.

    `folder`: its files, with its adapter apart; `template`: renders its prompts; `recipe`: its run's, for engine,
    evaluation and seed; `metrics`: the study's own measurement of it.
    """

    model: PreTrainedModel
    folder: Path
    template: Template
    context: Context
    recipe: Recipe
    reference: ReferenceValues | None
    metrics: dict[str, float]
    ranks: Ranks

    @property
    def shard(self) -> RankShard:
        """This rank's part of an evaluation of the whole model."""
        return RankShard(self.ranks.rank, self.ranks.world, self.ranks.gather)

    @cached_property
    def task(self) -> AnyTask:
        """The benchmark with this model's template."""
        if self.template is self.context.template:
            return self.context.task
        return task_of(self.context.benchmark, self.template, self.model)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return every metric of `model`, measured as the study measures its trials."""
        config = self.recipe.evaluation
        shared = self.task is self.context.task
        evals = self.context.eval_set(config) if shared else self.task.eval_set(config)
        return self.task.evaluate(model, evals, config, self.reference, self.shard, last=True).metrics

    # Questions and answers

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The forget rows that the study asks; none where the benchmark has no questions."""
        return self.context.benchmark.asked(self.recipe.evaluation)

    def ask(self, questions: Questions, model: nn.Module | None = None, shard: RankShard | None = None) -> Leaks:
        """Ask `model`, by default the finished one, and return what its answers leak."""
        return ask(model or self.model, questions, self.template, self.recipe.evaluation, shard or self.shard)

    def ask_worst(self, wordings: Iterable[Sequence[str]]) -> Leaks:
        """Ask the rows' questions in each of `wordings`, a text for each row, and return the leaks of the one whose
        answers have most in common with the true ones."""
        asked = (self.ask(Questions.of(self.template, self.rows, questions)) for questions in wordings)
        return max(asked, key=lambda leaks: leaks.rouge.mean())

    @cached_property
    def unaltered(self) -> Leaks:
        """The leaks of the forget rows, asked as the study asks them."""
        return self.ask(Questions.of(self.template, self.rows))

    # Forget rows of any kind

    def losses(self, pairs: Sequence[Encoded]) -> list[float]:
        """Return the mean token loss of each answer under the finished model."""

        def scored(mine: Sequence[Encoded]) -> list[float]:
            budget = self.recipe.evaluation.token_budget
            found: list[float] = score(self.model, mine, pad=self.template.pad, token_budget=budget).nll_mean.tolist()
            return found

        with evaluating(self.model):
            return self.shard.map(pairs, scored)

    def leaks(self, model: nn.Module, chosen: Sequence[int], shard: RankShard | None = None) -> dict[str, float]:
        """Return the benchmark's leak metrics of `model` on the `chosen` of the evaluated forget rows."""
        return self.task.leaks(model, chosen, self.recipe.evaluation, self.reference, shard or self.shard)
