"""WMDP as one tokenizer reads it, and one evaluation of a model: docs/METHODS.md section 5c."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import nn

from lethe.benchmarks.base import EvaluationResult, ReferenceValues, Task
from lethe.benchmarks.wmdp.loading import WmdpRows, harness
from lethe.config.base import Frozen
from lethe.config.run import Evaluation, LmEval
from lethe.config.wmdp import WmdpBenchmark
from lethe.data.template import Encoded, Template
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.lm_eval import Choice, answer_questions
from lethe.evaluation.metrics import LARGEST_LOSS, losses
from lethe.evaluation.rows import stack_splits
from lethe.evaluation.texts import Texts, score_texts, windows_of

LEAST_TOKENS = 1  # scored tokens of a row: no end-of-sequence token follows


@dataclass(frozen=True)
class WmdpEvalSet:
    """Documents of which the loss is measured, the tasks with the settings of the harness, and the share of their
    questions that is asked."""

    template: Template
    forget: Texts
    retain: Texts
    tasks: LmEval
    share: float = 1.0

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield the windows of all documents, with names."""
        for name, texts in (("forget", self.forget), ("retain", self.retain)):
            yield from texts.named(name)


class WmdpScores(Frozen, ReferenceValues):
    """Scores of one model: its accuracy on the field to forget, and its utility."""

    forget_accuracy: float
    utility: float

    def dump(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return self.model_dump()


@dataclass(frozen=True)
class WmdpTask(Task[WmdpEvalSet, WmdpScores]):
    """Documents in windows, and questions; trials are compared with chance."""

    rows: WmdpRows
    template: Template
    settings: WmdpBenchmark

    least_tokens: ClassVar[int] = LEAST_TOKENS

    @cached_property
    def forget(self) -> list[Encoded]:
        """The windows of all documents to forget."""
        return self._windows(self.rows.forget)

    @cached_property
    def retain(self) -> list[Encoded]:
        """The windows of all documents that are kept."""
        return self._windows(self.rows.retain)

    def eval_set(self, config: Evaluation) -> WmdpEvalSet:
        """Tokenise the documents of both parts that `config` chooses."""
        parts = (config.chosen(part) for part in (self.rows.forget, self.rows.retain))
        forget, retain = (Texts.of(part, self.template, self.settings.window) for part in parts)
        return WmdpEvalSet(
            self.template, forget, retain, harness(self.settings, self.rows.task_path, config.max_rows), config.share
        )

    def _evaluate(
        self,
        model: nn.Module,
        evals: WmdpEvalSet,
        config: Evaluation,
        reference: WmdpScores | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        check_context_length(evals.named_rows(), ContextLimits.of(model), least=LEAST_TOKENS)
        template, budget = evals.template, config.token_budget
        with evaluating(model):
            loss = {
                "forget": _losses(model, evals.forget, template, budget, shard),
                "retain": _losses(model, evals.retain, template, budget, shard),
            }
        choices = answer_questions(model, template, evals.tasks, budget, shard, share=evals.share)
        metrics = self._accuracies(choices)
        metrics |= {
            f"{name}_loss": float(np.minimum(losses(values), LARGEST_LOSS).mean()) for name, values in loss.items()
        }
        finite = not bool(np.isnan(np.concatenate([*loss.values()])).any())
        parts: dict[str, Any] = {name: {"loss": losses(values)} for name, values in loss.items()}
        about = dict.fromkeys(self.settings.forget_tasks, "forget_questions")
        for task, answered in choices.items():
            columns = parts.setdefault(about.get(task, "utility_questions"), {})
            for name, values in _columns(task, answered).items():
                columns.setdefault(name, []).extend(values)
        own = WmdpScores(forget_accuracy=metrics["forget_accuracy"], utility=metrics["utility"])
        return EvaluationResult(metrics=metrics, finite=finite, rows=stack_splits(parts), reference=own)

    def reference_values(self, stored: Any, evals: WmdpEvalSet) -> WmdpScores | None:
        """Read the start model's scores."""
        return None if stored is None else WmdpScores.model_validate(stored)

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return the first window of each evaluated document to forget."""
        texts = config.chosen(self.rows.forget)
        return [rows[0] for rows in windows_of(texts, self.template, self.settings.window)]

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: WmdpScores | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure the accuracy of the tasks about what has to go, whatever documents are chosen: no question belongs
        to one document."""
        tasks = harness(self.settings, self.rows.task_path, config.max_rows)
        only = tasks.model_copy(update={"tasks": self.settings.forget_tasks})
        choices = answer_questions(model, self.template, only, config.token_budget, shard, share=config.share)
        return {"forget_accuracy": _mean_accuracy(choices.values())}

    def _accuracies(self, choices: dict[str, tuple[Choice, ...]]) -> dict[str, float]:
        """Return the accuracy of each task and what is made from them."""
        forget = {task: choices[task] for task in self.settings.forget_tasks}
        kept = {task: answered for task, answered in choices.items() if task not in forget}
        accuracy = _mean_accuracy(forget.values())
        chance = float(np.mean([np.mean([1 / c.options for c in answered]) for answered in forget.values()]))
        return {
            "forget": abs(accuracy - chance),
            "utility": _mean_accuracy(kept.values()),
            "forget_accuracy": accuracy,
            **{f"lm_eval_{task}": _mean_accuracy([answered]) for task, answered in choices.items()},
        }

    def _windows(self, texts: Sequence[str]) -> list[Encoded]:
        return [row for rows in windows_of(texts, self.template, self.settings.window) for row in rows]


def _mean_accuracy(tasks: Any) -> float:
    """Return the mean over tasks of the share of questions whose right end was chosen."""
    return float(np.mean([np.mean([choice.chosen == choice.right for choice in answered]) for answered in tasks]))


def _losses(model: nn.Module, texts: Texts, template: Template, token_budget: int, shard: RankShard) -> np.ndarray:
    """Return the mean token loss of each document [n], NaN where the model gives no number."""
    return score_texts(model, texts, template, token_budget, shard, standardised=False).nll_mean


def _columns(task: str, answered: Sequence[Choice]) -> dict[str, list[Any]]:
    return {
        "task": [task] * len(answered),
        "question": [choice.question for choice in answered],
        "answer": [choice.ends[choice.right] for choice in answered],
        "generated": [choice.ends[choice.chosen] for choice in answered],
    }
