"""Audit by relearning: a little training on some rows can bring back others. Hu et al. 2024, arXiv 2406.13356."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar

from torch import nn

from lethe.audits.base import AUDITS, Audited
from lethe.benchmarks.base import EvaluationResult
from lethe.benchmarks.embedded.facts import WORLD_FACTS
from lethe.config.adapter import FullParameters, Lora
from lethe.config.audits import Relearning
from lethe.config.objective import GradientAscent
from lethe.config.optimizer import AdamW
from lethe.config.run import Recipe, Schedule
from lethe.data.template import Encoded
from lethe.evaluation.distributed import RankShard
from lethe.models.fisher import evenly_spread
from lethe.records import AuditRecord, FinalReport
from lethe.unlearning.context import Context
from lethe.unlearning.finetuning import Descent
from lethe.unlearning.outcome import Ranks
from lethe.unlearning.trainer import unlearn

T = TypeVar("T")
HALF = 0.5  # the share of the forget rows that the source `half` learns
Measure = Callable[[nn.Module, RankShard], dict[str, float]]


@AUDITS.implements(Relearning)
def relearn(audited: Audited, config: Relearning) -> Iterator[AuditRecord]:
    """Train a copy of the finished model on each kind of rows that `config` names, with the training loop of all runs.
    Before and after are measured on the same forget rows, none of which is learned."""
    evaluated = audited.task.evaluated_forget(audited.recipe.evaluation)
    before: dict[float, dict[str, float]] = {}  # by share: other rows are measured
    for variant, source, adapter, rate in config.learners():
        share = HALF if source == "half" else config.share
        learned, left = parts(len(evaluated), share)

        def measure(model: nn.Module, shard: RankShard, left: list[int] = left) -> dict[str, float]:
            return audited.leaks(model, left, shard)

        if share not in before:
            before[share] = measure(audited.model, audited.shard)
        rows = [evaluated[i] for i in learned]
        if source not in ("forget", "half"):
            others = {"retain": audited.task.retain, "holdout": audited.task.holdout, "text": general_text(audited)}
            rows = list(others[source][: len(learned)])
        recipe = _recipe(audited.recipe, config, adapter, rate, len(rows))
        context = _context(audited, _RelearningTask(rows, list(audited.task.retain), measure))
        report = _learn(recipe, context, audited.ranks)
        after = {name: report.values[name] for name in before[share] if name in report.values}
        yield AuditRecord(
            variant=variant, verdict=report.verdict, reason=report.reason, before=before[share], after=after
        )


def _learn(recipe: Recipe, context: Context, ranks: Ranks) -> FinalReport:
    """Train as the recipe says and return the last report. The trained model is gone when this returns."""
    with unlearn(recipe, context, None, _ignore, _Unseen(ranks), loss=Descent()) as outcome:
        return outcome.report


def general_text(audited: Audited) -> list[Encoded]:
    """Return true facts about the world as plain text, a row each, which say nothing of any benchmark's forget rows."""
    opening = audited.template.text_opening
    texts = [audited.template.text(f"{fact.question} {fact.answer}.") for fact in WORLD_FACTS]
    return [Encoded(ids, max(1, len(opening))) for ids in texts]


def parts(rows: int, share: float) -> tuple[list[int], list[int]]:
    """Return the numbers of the forget rows that are learned, a `share` of `rows` evenly spread, and of those that are
    measured. Neither is empty."""
    learned = evenly_spread(range(rows), min(rows - 1, ceil(share * rows)))
    return learned, [i for i in range(rows) if i not in set(learned)]


def _recipe(
    recipe: Recipe, config: Relearning, adapter: FullParameters | Lora, learning_rate: float, rows: int
) -> Recipe:
    """Return a recipe for plain training at a constant rate, measured once, in the finished model's own engine."""
    schedule = Schedule(
        epochs=config.steps, max_steps=config.steps, batch_size=min(config.batch_size, rows), decay=False
    )
    changes: dict[str, Any] = {
        "objective": GradientAscent(),  # not used: the loss is given
        "optimizer": AdamW(learning_rate=learning_rate, weight_decay=0.0),
        "adapter": adapter,
        "schedule": schedule,
        "evaluation": recipe.evaluation.model_copy(update={"every": config.steps}),
    }
    return recipe.model_copy(update=changes)


def _context(audited: Audited, task: _RelearningTask) -> Context:
    """Return a context with the finished model as the start model and the learned rows as forget rows."""
    context = Context(audited.context.assets, start_in_memory=audited.model)
    vars(context).update(
        benchmark=audited.context.benchmark,
        template=audited.template,
        task=task,
        forget=task.forget,
        retain=task.retain,
        until_forgotten=False,
    )
    return context


@dataclass(frozen=True)
class _RelearningTask:
    """A task that trains on the learned rows and measures the forget rows that are not learned."""

    forget: list[Encoded]
    retain: list[Encoded]
    measure: Measure
    until_forgotten: bool = field(default=False, init=False)

    def eval_set(self, config: Any) -> None:
        """Return nothing: `measure` has its rows."""

    def evaluate(
        self, model: nn.Module, evals: None, config: Any, reference: None, shard: RankShard, *, last: bool
    ) -> EvaluationResult:
        """Return the leaks of `model`. They count as finite: a loss that is not a number makes every score 0."""
        return EvaluationResult(metrics=self.measure(model, shard), finite=True)


@dataclass(frozen=True)
class _Unseen:
    """The same ranks, whose steps nobody sees: they are none of the trial's that ends with this audit."""

    ranks: Ranks

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return self.ranks.rank

    @property
    def world(self) -> int:
        """The number of processes."""
        return self.ranks.world

    def gather(self, value: T) -> list[T]:
        """Return every rank's value on every rank, by rank."""
        return self.ranks.gather(value)

    def progressed(self, step: int, total: int) -> None:
        """Do nothing."""


def _ignore(report: dict[str, Any]) -> None:
    """Drop a report: only the last one, which the outcome has, counts."""
