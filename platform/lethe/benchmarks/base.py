"""What a benchmark is to a run: rows to train on, a measure, and perhaps a criterion to end by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

from lethe.benchmarks.tdec.evaluation import (
    TdecResult,
    TdecSet,
    Thresholds,
    build_tdec_set,
    evaluate_tdec,
    measure_thresholds,
    whole_rows,
)
from lethe.benchmarks.tdec.loading import Passages, Sequences, tokenised
from lethe.benchmarks.tofu.eval_set import EvalSet, build_eval_set
from lethe.benchmarks.tofu.evaluation import Result, evaluate
from lethe.benchmarks.tofu.reference import ReferenceScores
from lethe.config.benchmark import AnyBenchmark, TdecBenchmark
from lethe.config.run import Evaluation
from lethe.data.rows import Benchmark
from lethe.data.template import Encoded, Template
from lethe.evaluation.distributed import RankShard
from torch import nn

AnyEvalSet = EvalSet | TdecSet
AnyResult = Result | TdecResult
AnyTruth = ReferenceScores | Thresholds | None
R = TypeVar("R", Result, TdecResult)


class Task(Protocol):
    """`forget` and `retain`: all rows that a run may train on. `until_forgotten`: a run ends after the first
    evaluation whose result says `forgotten`."""

    forget: list[Encoded]
    retain: list[Encoded]
    until_forgotten: bool

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """`forget` and `retain`, with names for messages."""

    def eval_set(self, config: Evaluation) -> Any:
        """Everything that `evaluate` reads, tokenised."""

    def evaluate(
        self, model: nn.Module, evals: Any, config: Evaluation, truth: Any, shard: RankShard, *, last: bool
    ) -> Any:
        """Every metric, on every rank alike; `last` asks for those that are dear, too."""

    def baseline(self, model: nn.Module, evals: Any, config: Evaluation, shard: RankShard) -> tuple[Any, Any]:
        """The result of a model that is not trained, and as JSON what a study's trials may be compared with."""

    def truth(self, stored: Any, evals: Any) -> Any:
        """What `evaluate` takes, from what `baseline` gave. Raises BadInput where that was of other rows."""


@dataclass(frozen=True)
class TofuTask:
    """Questions and answers; the oracle's scores are what trials are compared with."""

    benchmark: Benchmark
    template: Template
    until_forgotten: bool = field(default=False, init=False)

    @cached_property
    def forget(self) -> list[Encoded]:
        return [self.template.encode(row.question, row.answer) for row in self.benchmark.forget]

    @cached_property
    def retain(self) -> list[Encoded]:
        return [self.template.encode(row.question, row.answer) for row in self.benchmark.retain]

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """See `Task`."""
        return _named(self)

    def eval_set(self, config: Evaluation) -> EvalSet:
        """See `Task`."""
        return build_eval_set(self.benchmark, self.template, config)

    def evaluate(
        self,
        model: nn.Module,
        evals: EvalSet,
        config: Evaluation,
        truth: ReferenceScores | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> Result:
        """See `Task`."""
        result = evaluate(model, evals, config, truth, rank=shard.rank, world=shard.world, gather=shard.gather)
        return _with_tasks(result, model, self.template, config, shard)

    def baseline(
        self, model: nn.Module, evals: EvalSet, config: Evaluation, shard: RankShard
    ) -> tuple[Result, dict[str, Any]]:
        """See `Task`."""
        result = self.evaluate(model, evals, config, None, shard, last=True)
        return result, result.truth.dump()

    def truth(self, stored: dict[str, Any] | None, evals: EvalSet) -> ReferenceScores | None:
        """See `Task`."""
        if stored is None:
            return None
        truth = ReferenceScores.load(stored)
        truth.check(evals.digest, len(evals.splits["forget"].rows))
        return truth


@dataclass(frozen=True)
class TdecTask:
    """Sequences; the start model's own thresholds are what trials are compared with."""

    passages: Passages
    sequences: Sequences
    template: Template
    settings: TdecBenchmark

    @property
    def until_forgotten(self) -> bool:
        return self.settings.until_forgotten

    @cached_property
    def forget(self) -> list[Encoded]:
        return [*whole_rows(self.sequences.forget)]

    @cached_property
    def retain(self) -> list[Encoded]:
        return [*whole_rows(self.sequences.retain)]

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """See `Task`."""
        return _named(self)

    def eval_set(self, config: Evaluation) -> TdecSet:
        """See `Task`."""
        return build_tdec_set(self.passages, self.sequences, self.template, self.settings, config)

    def evaluate(
        self,
        model: nn.Module,
        evals: TdecSet,
        config: Evaluation,
        truth: Thresholds | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> TdecResult:
        """See `Task`."""
        if truth is None:
            raise ValueError("TDEC needs the start model's thresholds: see `baseline`")
        result = evaluate_tdec(model, evals, config, truth, shard, last=last)
        return _with_tasks(result, model, self.template, config, shard)

    def baseline(
        self, model: nn.Module, evals: TdecSet, config: Evaluation, shard: RankShard
    ) -> tuple[TdecResult, dict[str, float]]:
        """See `Task`. The model is the start model: there is no other."""
        truth = measure_thresholds(model, evals, config, shard)
        result = self.evaluate(model, evals, config, truth, shard, last=True)
        names = ("memorization_accuracy", "extraction_likelihood")
        shown = {f"{name}_threshold": getattr(truth, name) for name in names}
        return replace(result, metrics={**result.metrics, **shown}), truth.model_dump()

    def truth(self, stored: dict[str, float] | None, evals: TdecSet) -> Thresholds | None:
        """See `Task`."""
        return None if stored is None else Thresholds.model_validate(stored)


def _named(task: Task) -> Iterator[tuple[str, Encoded]]:
    for name in ("forget", "retain"):
        yield from ((f"row {number} of {name}", row) for number, row in enumerate(getattr(task, name), 1))


def make_task(
    benchmark: Benchmark | Passages, settings: AnyBenchmark, template: Template, vocabulary: int
) -> TofuTask | TdecTask:
    """Raises BadInput for sequences that the model's tokenizer and vocabulary do not give."""
    if isinstance(benchmark, Benchmark):
        return TofuTask(benchmark, template)
    assert isinstance(settings, TdecBenchmark)
    return TdecTask(benchmark, tokenised(benchmark, template.tokenizer, vocabulary), template, settings)


def _with_tasks(result: R, model: nn.Module, template: Template, config: Evaluation, shard: RankShard) -> R:
    """The result with the tasks of lm-evaluation-harness that the study asks for."""
    if config.lm_eval is None:
        return result
    from lethe.evaluation.lm_eval import measure_tasks

    return replace(result, metrics={**result.metrics, **measure_tasks(model, template, config, shard)})
