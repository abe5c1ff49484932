"""TOFU as one tokenizer reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from lethe.benchmarks.base import EvaluationResult, Task
from lethe.benchmarks.tofu.eval_set import TofuEvalSet, build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.loading import TofuRows
from lethe.benchmarks.tofu.reference import ReferenceScores
from lethe.config.run import Evaluation
from lethe.data.rows import Row
from lethe.data.template import Encoded, Template
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.leaks import Questions, ask


@dataclass(frozen=True)
class TofuTask(Task[TofuEvalSet, ReferenceScores]):
    """Questions and answers; trials are compared with the oracle's scores."""

    rows: TofuRows
    template: Template

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget rows, without variants."""
        return self._encoded(self.rows.forget)

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain rows, without variants."""
        return self._encoded(self.rows.retain)

    @cached_property
    def holdout(self) -> list[Encoded]:
        """Rows about authors that no model was trained on."""
        return self._encoded(self.rows.holdout)

    def eval_set(self, config: Evaluation) -> TofuEvalSet:
        """Tokenise the first `config.max_rows` of every split."""
        return build_eval_set(self.rows, self.template, config)

    def _evaluate(
        self,
        model: nn.Module,
        evals: TofuEvalSet,
        config: Evaluation,
        reference: ReferenceScores | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        return evaluate(model, evals, config, reference, shard)

    def baseline(self, model: nn.Module, evals: TofuEvalSet, config: Evaluation, shard: RankShard) -> EvaluationResult:
        """Evaluate `model` alone: what compares it with an oracle is computed from both models' stored values."""
        return self.evaluate(model, evals, config, None, shard, last=True)

    def reference_values(self, stored: Any, evals: TofuEvalSet) -> ReferenceScores | None:
        """Read an oracle's scores, and check that they are scores of the rows of `evals`."""
        if stored is None:
            return None
        reference = ReferenceScores.load(stored)
        reference.check(evals.digest, len(evals.splits["forget"].rows))
        return reference

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return the forget rows with variants, at most `config.max_rows`."""
        return self._encoded(self.rows.forget_eval[: config.max_rows])

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: ReferenceScores | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure probability, extraction strength and ROUGE of the chosen rows' answers."""
        questions = Questions.of(self.template, self.rows.forget_eval[: config.max_rows]).only(chosen)
        return ask(model, questions, self.template, config, shard).means()

    def _encoded(self, rows: Sequence[Row]) -> list[Encoded]:
        return [self.template.encode(row.question, row.answer) for row in rows]
