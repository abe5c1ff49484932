"""Scores of finished models on one benchmark: read from the cache or measured in this process, side by side.

Models are compared with others: oracle, start model, base, whatever the benchmark says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from lethe.benchmarks.base import Benchmark
from lethe.benchmarks.measurement import measure, shown_text, task_of
from lethe.config.base import short_digest
from lethe.config.benchmark import Role
from lethe.config.privacy import StoredText
from lethe.config.prompt import Prompt
from lethe.config.run import Engine, Evaluation
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.rows import Columns, write_rows
from lethe.evaluation.score_cache import Measurement, Scores, load_scores, store_scores
from lethe.records import Sample
from lethe.study.scored_models import ScoredModel


@dataclass(frozen=True)
class Scoring:
    """The evaluation that all models get: its data, its settings, the device and threads that it runs on, and the
    prompt, which gives way to a model's own where it is the default. `text`: what of the rows' text is stored."""

    benchmark: Benchmark
    evaluation: Evaluation
    engine: Engine
    prompt: Prompt = field(default_factory=Prompt)
    text: StoredText = "keep"

    @property
    def needs_start(self) -> bool:
        """True if a model can be measured only against the start model's reference values; otherwise stored scores are
        compared with those of other models afterwards."""
        return self.benchmark.config.needs_start

    def measurement(self, model: ScoredModel, template: Template, start: Scores | None = None) -> Measurement:
        """Return the cache key of the scores of a model that is asked with `template`, on one rank; `start` as in
        `scores`."""
        return Measurement.of(
            self.benchmark.config,
            model.digest,
            model.tokenizer_digest,
            self.benchmark.digest,
            template.digest(questions=self.benchmark.has_questions),
            self.evaluation,
            self.engine,
            1,
            reference=None if start is None else short_digest(json.dumps(start.reference)),
            precision=model.precision,
            quantisation=model.quantisation,
            text=self.text,
        )

    def notes(self, model: ScoredModel) -> Iterator[str]:
        """Yield a line for each thing that the evaluation of the model leaves out of the data."""
        with _named(model):
            yield from self.benchmark.notes(self.evaluation, model.template(self.prompt))

    def scores(self, model: ScoredModel, start: Scores | None = None) -> Scores:
        """Return a model's scores, from the cache or measured and stored. `start`: the start model's scores,
        where `needs_start`; None for the start model itself."""
        with _named(model):
            template = model.template(self.prompt)
            measurement = self.measurement(model, template, start)
        scores = load_scores(measurement)
        if scores is None:
            scores, rows = self._measure(model, template, start)
            write_rows(measurement.rows, rows)
            store_scores(measurement, scores)
        return scores

    def _measure(self, model: ScoredModel, template: Template, start: Scores | None) -> tuple[Scores, Columns]:
        network = model.load(self.engine.device)
        with _named(model):
            task = task_of(self.benchmark, template, network)
            stored = None if start is None else start.reference
            result = measure(network, task, task.eval_set(self.evaluation), self.evaluation, RankShard(), stored)
        own = stored if result.reference is None else result.reference.dump()
        shown = replace(result, rows=shown_text(self.text, self.benchmark, lambda: task).columns(result.rows))
        samples = tuple(Sample.model_validate(sample) for sample in self.benchmark.samples(shown))
        return Scores(metrics=result.metrics, samples=samples, reference=own, fault=result.fault), shown.rows


@contextmanager
def _named(model: ScoredModel) -> Iterator[None]:
    """Put the model's name before the message of a UserError of the block, unless that has it or the model's folder."""
    try:
        yield
    except UserError as error:
        known = any(name in str(error) for name in (model.name, str(model.folder)))
        raise error if known else UserError(f"{model.name}: {error}") from None


Begin = Callable[[str], None]  # called with the name of each model before it is scored


@dataclass(frozen=True)
class Scored:
    """A model with its metrics. `fault`: what makes them meaningless, empty where nothing does."""

    model: ScoredModel
    metrics: dict[str, float]
    fault: str = ""

    @property
    def column(self) -> tuple[str, dict[str, float]]:
        """Name and metrics, as a table's column."""
        return self.model.name, self.metrics

    def as_json(self) -> dict[str, Any]:
        """Return name, digest, metrics and fault for a JSON file; the name is as it was given."""
        content = {"model": self.model.name, "digest": self.model.digest, "metrics": self.metrics}
        return {**content, "fault": self.fault} if self.fault else content


@dataclass(frozen=True)
class SideBySide:
    """Models in the order in which they were given, and those that they are compared with."""

    models: tuple[Scored, ...]
    references: Mapping[Role, Scored]


def score_all(
    scoring: Scoring, models: Sequence[ScoredModel], references: Mapping[Role, ScoredModel], begin: Begin
) -> SideBySide:
    """Score each model, from the cache or measured, after those that they are compared with. Raises UserError that
    names the model which cannot be scored."""
    of_references: dict[Role, Scores] = {}
    for role, model in references.items():
        begin(model.name)
        of_references[role] = scoring.scores(model)
    benchmark, start = scoring.benchmark, references.get("start")
    reference = benchmark.reference({role: scores.reference for role, scores in of_references.items()})

    def scored(model: ScoredModel) -> Scored:
        needed = scoring.needs_start and start is not None and model.digest != start.digest
        scores = scoring.scores(model, of_references["start"] if needed else None)
        compared = {} if reference is None else benchmark.reference_metrics(scores.reference, reference)
        return Scored(model, {**scores.metrics, **compared}, scores.fault)

    found = []
    for model in models:
        begin(model.name)
        found.append(scored(model))
    return SideBySide(tuple(found), {role: scored(model) for role, model in references.items()})


def provenance_warnings(models: Sequence[ScoredModel], data: str, oracle: ScoredModel | None) -> Iterator[str]:
    """Yield a line for each registered version that comes from a study with other data than `data`, a digest, or that
    was compared with another `oracle`."""
    expected = {"lethe.data": ("other data", data)}
    if oracle is not None:
        expected["lethe.oracle"] = ("another oracle", oracle.digest)
    for model in models:
        for tag, (difference, digest) in expected.items():
            if model.tags.get(tag, digest) != digest:
                yield f"{model.name} comes from a study with {difference}: its numbers there are others than here"
