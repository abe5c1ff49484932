"""Scores by content: what was measured on a model once is read back, by any study and by `score`.

Nothing of a name or a place is in the key, only what can change the numbers. That is more than data, model and
settings: batches of another size, other threads or another device add in another order, which moves the last bits and,
where two tokens are nearly equally likely, a greedy answer; equal runs are bit-identical, so their yardsticks are too.
The code that measures is in it by its own digest: a version number would have to be remembered.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import lethe
from lethe.config.base import Frozen, short_digest
from lethe.config.run import Engine, Evaluation
from lethe.records import ModelScores
from lethe.storage.paths import atomic_write, home
from lethe.storage.replica import local_path

CODE = ("evaluation/*.py", "benchmarks/*/*.py", "data/template.py", "models/forward.py", "models/loading.py")
LIBRARIES = ("torch", "transformers")


class Scores(ModelScores):
    """What a model scored, and what others may be compared with: its truth ratios, or thresholds, as JSON."""

    truth: Any = None


class Measurement(Frozen):
    """Everything that decides what a model scores. `yardstick`: the digest of what it is measured against, where
    that has to be known beforehand."""

    model: str
    tokenizer: str
    data: str
    evaluation: Evaluation
    instruction: str = ""
    yardstick: str | None = None
    device: Literal["cpu", "cuda"]
    threads: int
    ranks: int
    code: str
    libraries: dict[str, str]

    @classmethod
    def of(
        cls, model: str, tokenizer: str, data: str, evaluation: Evaluation, engine: Engine, ranks: int, **more: Any
    ) -> Self:
        """`model`, `tokenizer`, `data`: content digests. How often a run is evaluated does not matter here, nor do the engine's
        stage and precision: the model is whole, in fp32."""
        return cls(
            model=model,
            tokenizer=tokenizer,
            data=data,
            evaluation=evaluation.model_copy(update={"every": 1}),
            device=engine.device,
            threads=engine.threads,
            ranks=ranks,
            code=_code(),
            libraries={name: version(name) for name in (*LIBRARIES, *(["lm-eval"] if evaluation.lm_eval else []))},
            **more,
        )

    @property
    def path(self) -> Path:
        """Where the scores are, if they are."""
        return home() / "cache" / "scores" / f"{self.digest()}.json"

    @property
    def rows(self) -> Path:
        """Where the rows are that they come from, in parquet, for whoever wants another aggregate."""
        return self.path.with_suffix(".parquet")


def load_scores(measurement: Measurement) -> Scores | None:
    """The stored scores; None for a file that is absent, damaged, or about something else."""
    try:
        stored = json.loads(local_path(measurement.path).read_text(encoding="utf-8"))
        text = stored["scores"]
        if stored["of"] != measurement.canonical() or stored["digest"] != short_digest(text):
            return None
        return Scores.model_validate_json(text)
    except (OSError, ValueError, KeyError, TypeError):  # UnicodeDecodeError and ValidationError are ValueErrors
        return None


def store_scores(measurement: Measurement, scores: Scores) -> None:
    """Keep the scores. Who writes the same at the same time writes the same numbers."""
    text = scores.model_dump_json()
    whole = {"of": measurement.canonical(), "digest": short_digest(text), "scores": text}
    atomic_write(measurement.path, json.dumps(whole))


@cache
def _code() -> str:
    root = Path(lethe.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in root.glob(pattern)):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]
