"""A model's scores beside the yardstick's: the oracle, or for TDEC the start model.

One model's scores on a benchmark: from the cache, or measured in this process.

Several models on one benchmark, and what they are measured against.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lethe.benchmarks.base import make_task
from lethe.benchmarks.samples import samples
from lethe.benchmarks.tdec.loading import Passages
from lethe.benchmarks.tofu.reference import ReferenceScores, reference_metrics
from lethe.config.base import short_digest
from lethe.config.benchmark import AnyBenchmark, TdecBenchmark
from lethe.config.run import Engine, Evaluation
from lethe.data.rows import Benchmark
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.rows import Columns, write_rows
from lethe.evaluation.score_cache import Measurement, Scores, load_scores, store_scores
from lethe.records import Sample
from lethe.study.model_lookup import ScoredModel


def add_reference_metrics(scores: Scores, oracle: Scores) -> dict[str, float]:
    """The model's metrics with those that compare it with the oracle: no forward pass, so that neither's stored
    scores depend on the other. Raises BadInput for an oracle that is no trained model, or was asked other rows."""
    ours, theirs = ReferenceScores.load(scores.truth), ReferenceScores.load(oracle.truth)
    if not theirs.finite:
        raise UserError("the oracle's truth ratios are not finite: is it a trained model?")
    theirs.check(ours.digest, len(ours.forget_truth_ratio))
    return {**scores.metrics, **reference_metrics(ours, theirs)}


@dataclass(frozen=True)
class Scoring:
    """What models are asked, how, and on what device and threads."""

    rows: Benchmark | Passages
    settings: AnyBenchmark
    evaluation: Evaluation
    engine: Engine

    @property
    def needs_start(self) -> bool:
        """Whether a model can only be measured against the start model's thresholds; else an oracle can be compared
        with afterwards."""
        return isinstance(self.settings, TdecBenchmark)

    def measurement(self, model: ScoredModel, yardstick: Scores | None = None) -> Measurement:
        """The key of a model's scores, on one rank."""
        return Measurement.of(
            model.digest,
            model.tokenizer_digest,
            self.rows.digest,
            self.evaluation,
            self.engine,
            1,
            instruction=model.instruction,
            yardstick=None if yardstick is None else short_digest(json.dumps(yardstick.truth)),
        )

    def scores(self, model: ScoredModel, yardstick: Scores | None = None) -> Scores:
        """Read back, or measured and kept. `yardstick`: the start model's, where `needs_start`; itself has none."""
        measurement = self.measurement(model, yardstick)
        found = load_scores(measurement)
        if found is None:
            found, rows = self._measure(model, yardstick)
            write_rows(measurement.rows, rows)
            store_scores(measurement, found)
        return found

    def _measure(self, model: ScoredModel, yardstick: Scores | None) -> tuple[Scores, Columns]:
        template, network = model.template(), model.load().to(self.engine.device)
        try:
            vocabulary = network.config.get_text_config(decoder=True).vocab_size
            task = make_task(self.rows, self.settings, template, vocabulary)
            evals, shard = task.eval_set(self.evaluation), RankShard()
            if yardstick is None:
                result, truth = task.baseline(network, evals, self.evaluation, shard)
            else:
                truth = yardstick.truth
                result = task.evaluate(network, evals, self.evaluation, task.truth(truth, evals), shard, last=True)
        except UserError as error:
            raise UserError(f"{model.name}: {error}") from None
        shown = tuple(Sample.model_validate(sample) for sample in samples(result))
        return Scores(metrics=result.metrics, samples=shown, truth=truth), result.rows


Begin = Callable[[str], None]  # told the name of the model that is looked at next


@dataclass(frozen=True)
class Scored:
    """A model with its metrics."""

    model: ScoredModel
    metrics: dict[str, float]

    @property
    def column(self) -> tuple[str, dict[str, float]]:
        """What a table shows."""
        return self.model.name, self.metrics

    def as_json(self) -> dict[str, Any]:
        """What a file says: names as they were given."""
        return {"model": self.model.name, "digest": self.model.digest, "metrics": self.metrics}


@dataclass(frozen=True)
class SideBySide:
    """`yardstick`: the oracle, or for TDEC the start model."""

    models: tuple[Scored, ...]
    yardstick: Scored | None


def score_all(
    scoring: Scoring, models: Sequence[ScoredModel], yardstick: ScoredModel | None, begin: Begin
) -> SideBySide:
    """Each from the cache or measured, in order, the yardstick first. Raises BadInput for the model that cannot be."""
    measure = None
    if yardstick is not None:
        begin(yardstick.name)
        measure = scoring.scores(yardstick)

    def scored(model: ScoredModel) -> Scored:
        if scoring.needs_start:
            itself = yardstick is not None and model.digest == yardstick.digest
            return Scored(model, scoring.scores(model, None if itself else measure).metrics)
        scores = scoring.scores(model)
        return Scored(model, add_reference_metrics(scores, measure) if measure else scores.metrics)

    found = []
    for model in models:
        begin(model.name)
        found.append(scored(model))
    return SideBySide(tuple(found), scored(yardstick) if yardstick else None)


def provenance_warnings(models: Sequence[ScoredModel], data: str, yardstick: ScoredModel | None) -> Iterator[str]:
    """A line for each registered version that comes from other data, or was compared with another oracle."""
    others = {"lethe.data": ("other data", data)}
    if yardstick is not None:
        others["lethe.oracle"] = ("another oracle", yardstick.digest)
    for model in models:
        for tag, (what, digest) in others.items():
            if model.tags.get(tag, digest) != digest:
                yield f"{model.name} comes from a study with {what}: its numbers there are others than here"
