"""Scores by content: a model that was measured once is not measured again, by any study or by `score`.

A key holds no name and no path, only what can change the numbers. That is more than data, model and settings: batches
of another size, other threads or another device add in another order, which moves the last bits and, where two tokens
are nearly equally likely, a greedy answer. Equal runs are bit-identical, so their reference values are, too. The code
that measures is in the key by its own digest: a version number would have to be remembered.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field

from lethe.config.base import Frozen, short_digest
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.privacy import StoredText
from lethe.config.run import Engine, Evaluation, Quantisation
from lethe.evaluation.code_digest import code_digest
from lethe.models.loading import Precision
from lethe.records import ModelScores
from lethe.storage.paths import atomic_write, home
from lethe.storage.replica import local_path

# The module in which both a study's baselines and `score` measure a model. A name: this package is below it.
ENTRY = "lethe.benchmarks.measurement"
LIBRARIES = ("numpy", "peft", "tokenizers", "torch", "transformers")


class Scores(ModelScores):
    """A model's metrics, and the reference values that others may be compared with, as `ReferenceValues.dump` gives
    them. `fault`: as `EvaluationResult` has it."""

    fault: str = ""

    # The files of the cache call it `truth`.
    reference: Any = Field(None, validation_alias=AliasChoices("reference", "truth"), serialization_alias="truth")


class Measurement(Frozen):
    """Everything that decides a model's scores. `reference`: the digest of the reference values that it is measured
    against, where these have to be known beforehand; `text`: what of the rows' text is stored with the scores."""

    model: str
    tokenizer: str
    data: str
    evaluation: Evaluation
    prompt: str
    reference: str | None = None
    device: Literal["cpu", "cuda"]
    precision: Precision
    quantisation: Quantisation | None = None
    threads: int
    ranks: int
    text: StoredText = "keep"
    code: str
    libraries: dict[str, str]

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without `text` where all of it is kept."""
        fields = super().canonical_fields(dumped)
        return {key: value for key, value in fields.items() if (key, value) != ("text", "keep")}

    @classmethod
    def of(
        cls,
        benchmark: BenchmarkConfig,
        model: str,
        tokenizer: str,
        data: str,
        prompt: str,
        evaluation: Evaluation,
        engine: Engine,
        ranks: int,
        *,
        reference: str | None = None,
        precision: Precision | None = None,
        quantisation: Quantisation | None = None,
        text: StoredText = "keep",
    ) -> Self:
        """Build the key. `model`, `tokenizer`, `data`, `prompt`: content digests; `precision` and `quantisation`: of
        the weights; without a precision, the engine's. `every` and `interim` are not part of it: they say what a run
        measures before its last epoch. Nor is the engine's stage: the model is whole."""
        return cls(
            model=model,
            tokenizer=tokenizer,
            data=data,
            evaluation=evaluation.model_copy(update={"every": 1, "interim": Evaluation().interim}),
            prompt=prompt,
            reference=reference,
            device=engine.device,
            precision=precision or engine.precision,
            quantisation=quantisation if precision else engine.quantisation,
            threads=engine.threads,
            ranks=ranks,
            text=text,
            code=code_digest((ENTRY, benchmark.implementation.partition(":")[0])),
            # From 3.12 on the built-in sum() rounds floats differently, so the Python minor counts as a library.
            libraries={"python": "{}.{}".format(*sys.version_info)}
            | {name: version(name) for name in (*LIBRARIES, *(["lm-eval"] if evaluation.lm_eval else []))},
        )

    @property
    def path(self) -> Path:
        """File of the scores; it may not exist."""
        return home() / "cache" / "scores" / f"{self.digest()}.json"

    @property
    def rows(self) -> Path:
        """Parquet file of the rows that the scores were computed from, for other aggregates."""
        return self.path.with_suffix(".parquet")


def load_scores(measurement: Measurement) -> Scores | None:
    """Return the stored scores; None for a file that is absent, damaged, or about something else."""
    try:
        stored = json.loads(local_path(measurement.path).read_text(encoding="utf-8"))
        text = stored["scores"]
        if stored["of"] != measurement.canonical() or stored["digest"] != short_digest(text):
            return None
        return Scores.model_validate_json(text)
    except (OSError, ValueError, KeyError, TypeError):  # UnicodeDecodeError and ValidationError are ValueErrors
        return None


def store_scores(measurement: Measurement, scores: Scores) -> None:
    """Write the scores. Processes that store the same measurement at the same time write the same numbers."""
    text = scores.model_dump_json(by_alias=True)
    content = {"of": measurement.canonical(), "digest": short_digest(text), "scores": text}
    atomic_write(measurement.path, json.dumps(content))
