"""TDEC as one tokenizer reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import nn

from lethe.benchmarks.base import EvaluationResult, Task
from lethe.benchmarks.tdec.eval_set import TdecEvalSet, build_eval_set, whole_rows
from lethe.benchmarks.tdec.evaluation import LEAST_TOKENS, evaluate, measure_thresholds
from lethe.benchmarks.tdec.loading import Passages, Sequences
from lethe.benchmarks.tdec.reference import Thresholds
from lethe.config.benchmark import TdecBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Template
from lethe.evaluation.distributed import RankShard


@dataclass(frozen=True)
class TdecTask(Task[TdecEvalSet, Thresholds]):
    """Sequences of tokens; trials are compared with the start model's thresholds."""

    passages: Passages
    sequences: Sequences
    template: Template
    settings: TdecBenchmark

    least_tokens: ClassVar[int] = LEAST_TOKENS

    @property
    def until_forgotten(self) -> bool:
        """True if the configuration says so."""
        return self.settings.until_forgotten

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget sequences."""
        return [*whole_rows(self.sequences.forget)]

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain sequences."""
        return [*whole_rows(self.sequences.retain)]

    def eval_set(self, config: Evaluation) -> TdecEvalSet:
        """Tokenise all forget and unseen sequences, and the first `config.max_rows` of the other parts."""
        return build_eval_set(self.passages, self.sequences, self.template, self.settings, config)

    def _evaluate(
        self,
        model: nn.Module,
        evals: TdecEvalSet,
        config: Evaluation,
        reference: Thresholds | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        if reference is None:
            raise ValueError("TDEC needs the start model's thresholds: see `baseline`")
        return evaluate(model, evals, config, reference, shard, last=last)

    def baseline(self, model: nn.Module, evals: TdecEvalSet, config: Evaluation, shard: RankShard) -> EvaluationResult:
        """Evaluate `model`, the start model, against its own thresholds, which are among the metrics."""
        thresholds = measure_thresholds(model, evals, config, shard)
        result = self.evaluate(model, evals, config, thresholds, shard, last=True)
        names = ("memorization_accuracy", "extraction_likelihood")
        shown = {f"{name}_threshold": getattr(thresholds, name) for name in names}
        return replace(result, metrics={**result.metrics, **shown}, reference=thresholds)

    def reference_values(self, stored: Any, evals: TdecEvalSet) -> Thresholds | None:
        """Read the start model's thresholds."""
        return None if stored is None else Thresholds.model_validate(stored)

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return all forget sequences."""
        return self.forget

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: Thresholds | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure MA and EL of the chosen sequences."""
        evals = self.eval_set(config)
        none = np.zeros(0, dtype=np.int64)
        # The validation text stays: its perplexity is quick.
        some = replace(
            evals, forget=evals.forget[list(chosen)], turns=(), prompts=(), questions=(), options=(), asked=none
        )
        metrics = self._evaluate(model, some, config, reference, shard, last=True).metrics
        return {name: metrics[name] for name in self.settings.leaks}
