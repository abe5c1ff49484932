"""A registered benchmark at its smallest size with a model that was trained on it for a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from lethe.benchmarks.base import AnyTask, Benchmark, EvalSet, EvaluationResult, load_benchmark
from lethe.benchmarks.measurement import load_network, task_of, template_of
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.model import EmbeddedModel
from lethe.config.run import Evaluation
from lethe.config.wmdp import WmdpBenchmark
from lethe.evaluation.distributed import RankShard
from lethe.models.pretraining import new_model, save, train
from lethe.models.tokenizer import as_pretrained, train_tokenizer
from lethe.unlearning.outcome import Measure

MODEL = EmbeddedModel(
    hidden_size=16, layers=1, heads=2, vocab_size=400, max_length=128, epochs=4, batch_size=4, learning_rate=1e-2
)
EVALUATION = Evaluation(max_rows=3, max_new_tokens=8, token_budget=256)
INTERIM = EVALUATION.before_last()  # two rows of three


@dataclass(frozen=True)
class World:
    """`model` lies in `folder`; `evals` are what `EVALUATION` reads."""

    config: BenchmarkConfig
    benchmark: Benchmark
    folder: Path
    model: PreTrainedModel
    task: AnyTask
    evals: EvalSet

    def baseline(self) -> EvaluationResult:
        """The model as start model or oracle."""
        return self.task.baseline(self.model, self.evals, EVALUATION, RankShard())

    def interim(self, model: PreTrainedModel | None = None) -> Measure:
        """What interim evaluations read, beside `model` in all roles."""
        evals = self.task.eval_set(INTERIM)
        stored = self.stored_reference(self.task.baseline(model or self.model, evals, INTERIM, RankShard()))
        return Measure(INTERIM, self.task.reference_values(stored, evals))

    def stored_reference(self, baseline: EvaluationResult | None = None) -> Any:
        """What models are compared with, as read from a file, where one model has all roles: by default the model."""
        dumped = (baseline or self.baseline()).reference
        assert dumped is not None
        return json.loads(json.dumps(self.benchmark.reference(dict.fromkeys(self.config.compared_with, dumped.dump()))))

    def reference(self, baseline: EvaluationResult | None = None) -> Any:
        """`stored_reference`, as the task reads it."""
        return self.task.reference_values(self.stored_reference(baseline), self.evals)

    def evaluate(self, reference: Any, shard: RankShard | None = None) -> EvaluationResult:
        """The model as a trial's, in a copy: ranks evaluate at the same time."""
        model = deepcopy(self.model)
        return self.task.evaluate(model, self.evals, EVALUATION, reference, shard or RankShard(), last=True)


def make_world(kind: type[BenchmarkConfig], folder: Path) -> World:
    """A model of a few thousand weights, trained on what a run trains on, with a tokenizer of the benchmark's texts."""
    config = kind.small()
    benchmark = load_benchmark(config)
    texts = [text for row in benchmark.training_rows(include_forget=True) for text in (row.question, row.answer)]
    tokenizer = as_pretrained(train_tokenizer(texts, MODEL.vocab_size))
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = new_model(MODEL, len(tokenizer))
        task = task_of(benchmark, template_of(folder), model)
        train(model, [*task.forget, *task.retain], MODEL, lambda share: None)
    save(model, folder)
    model = load_network(folder, "cpu")
    return World(config, benchmark, folder, model, task, task.eval_set(EVALUATION))


def skip_without_its_package(kind: type[BenchmarkConfig]) -> None:
    """Skip a test of a benchmark whose questions an extra package asks, where that is not installed."""
    if kind is WmdpBenchmark:
        pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")


def on_ranks(world: World, count: int, work: Callable[[World, RankShard], EvaluationResult]) -> list[EvaluationResult]:
    """`work` in `count` threads that gather as ranks do."""
    barrier, parts = Barrier(count, timeout=60), [[]] * count

    def run(rank: int) -> EvaluationResult:
        def gather(local: list) -> list[list]:
            parts[rank] = local
            barrier.wait()
            everything = list(parts)
            barrier.wait()
            return everything

        return work(world, RankShard(rank, count, gather))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
