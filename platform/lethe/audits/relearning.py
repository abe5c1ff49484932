"""Does a little training bring back what it was not given? Hu et al. 2024, arXiv 2406.13356."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from lethe.audits.base import Audited
from lethe.benchmarks.base import EvaluationResult
from lethe.config.audits import Relearning, relearned
from lethe.config.objective import GradientAscent
from lethe.config.optimizer import AdamW
from lethe.config.run import Recipe, Schedule
from lethe.data.template import Encoded
from lethe.evaluation.distributed import RankShard
from lethe.records import AuditRecord
from lethe.unlearning.context import Context
from lethe.unlearning.methods.retrain import Descent
from lethe.unlearning.trainer import unlearn
from torch import nn

Measure = Callable[[nn.Module, RankShard], dict[str, float]]


def relearn(audited: Audited, config: Relearning) -> Iterator[AuditRecord]:
    """Each kind of rows by a copy of the finished model, in the one training loop; before and after are of the same
    forget rows, none of which is learned."""
    evaluated = audited.task.evaluated_forget(audited.recipe.evaluation)
    learned, left = parts(len(evaluated), config.share)

    def measure(model: nn.Module, shard: RankShard) -> dict[str, float]:
        return audited.leaks(model, left, shard)

    before = measure(audited.model, audited.shard)
    for source in config.rows:
        others = {"retain": audited.task.retain, "holdout": audited.task.holdout}
        rows = [evaluated[i] for i in learned] if source == "forget" else list(others[source][: len(learned)])
        recipe = _recipe(audited.recipe, config, len(rows))
        task = _Rest(rows, list(audited.task.retain), measure)
        context = _context(audited, task)
        with unlearn(recipe, context, None, _ignore, audited.ranks, loss=Descent(recipe.objective)) as outcome:
            report = outcome.report
        after = {name: report[name] for name in before if name in report}
        verdict, reason = report["verdict"], report.get("reason", "")
        yield AuditRecord(variant=relearned(source), verdict=verdict, reason=reason, before=before, after=after)


def parts(rows: int, share: float) -> tuple[list[int], list[int]]:
    """Which of the forget rows are learned, evenly spread over all, and which are asked for afterwards."""
    count = min(rows - 1, ceil(share * rows))
    learned = [i * rows // count for i in range(count)]
    return learned, [i for i in range(rows) if i not in set(learned)]


def _recipe(recipe: Recipe, config: Relearning, rows: int) -> Recipe:
    """Plain training at a constant rate, measured once, in the finished model's own engine."""
    schedule = Schedule(
        epochs=config.steps, max_steps=config.steps, batch_size=min(config.batch_size, rows), decay=False
    )
    changes: dict[str, Any] = {
        "objective": GradientAscent(),  # read by nobody: the loss is given
        "optimizer": AdamW(learning_rate=config.learning_rate, weight_decay=0.0),
        "adapter": config.adapter,
        "schedule": schedule,
        "evaluation": recipe.evaluation.model_copy(update={"every": config.steps}),
    }
    return recipe.model_copy(update=changes)


def _context(audited: Audited, task: _Rest) -> Context:
    """The finished model where a run looks for the start model, the learned rows where it looks for forget rows."""
    context = Context(audited.context.assets)
    vars(context).update(
        benchmark=audited.context.benchmark,
        template=audited.template,
        task=task,
        forget=task.forget,
        retain=task.retain,
        start=audited.model,
        until_forgotten=False,
    )
    return context


@dataclass(frozen=True)
class _Rest:
    """A benchmark of which nothing is measured but the forget rows that are not learned."""

    forget: list[Encoded]
    retain: list[Encoded]
    measure: Measure
    until_forgotten: bool = field(default=False, init=False)

    def eval_set(self, config: Any) -> None:
        """Nothing that `measure` does not have."""

    def evaluate(
        self, model: nn.Module, evals: None, config: Any, truth: None, shard: RankShard, *, last: bool
    ) -> EvaluationResult:
        """A loss that is not a number makes every score 0, which is what it is worth."""
        return EvaluationResult(metrics=self.measure(model, shard), finite=True)


def _ignore(report: dict[str, Any]) -> None:
    """No report but the last."""
