"""One model's scores on a benchmark: from the cache, or measured in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lethe.config.base import short_digest
from lethe.config.benchmark import AnyBenchmark, TdecBenchmark
from lethe.config.engine import Engine
from lethe.config.evaluation import Evaluation
from lethe.data.rows import Benchmark
from lethe.data.tdec import Passages
from lethe.errors import BadInput
from lethe.evaluation.rows import Columns, write_rows
from lethe.evaluation.samples import samples
from lethe.evaluation.sharing import Share
from lethe.evaluation.task import make_task
from lethe.records import Sample
from lethe.scores.cache import Measurement, Scores, load, store
from lethe.scores.models import Candidate


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

    def measurement(self, model: Candidate, yardstick: Scores | None = None) -> Measurement:
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

    def scores(self, model: Candidate, yardstick: Scores | None = None) -> Scores:
        """Read back, or measured and kept. `yardstick`: the start model's, where `needs_start`; itself has none."""
        measurement = self.measurement(model, yardstick)
        found = load(measurement)
        if found is None:
            found, rows = self._measure(model, yardstick)
            write_rows(measurement.rows, rows)
            store(measurement, found)
        return found

    def _measure(self, model: Candidate, yardstick: Scores | None) -> tuple[Scores, Columns]:
        template, network = model.template(), model.load().to(self.engine.device)
        try:
            vocabulary = network.config.get_text_config(decoder=True).vocab_size
            task = make_task(self.rows, self.settings, template, vocabulary)
            evals, share = task.eval_set(self.evaluation), Share()
            if yardstick is None:
                result, truth = task.baseline(network, evals, self.evaluation, share)
            else:
                truth = yardstick.truth
                result = task.evaluate(network, evals, self.evaluation, task.truth(truth, evals), share, last=True)
        except BadInput as error:
            raise BadInput(f"{model.name}: {error}") from None
        shown = tuple(Sample.model_validate(sample) for sample in samples(result))
        return Scores(metrics=result.metrics, samples=shown, truth=truth), result.rows
