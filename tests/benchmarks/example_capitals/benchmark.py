"""Data of the example, behind `lethe.benchmarks.base.Benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from lethe.benchmarks.base import Benchmark
from lethe.config.base import canonical_json, short_digest
from lethe.config.run import Evaluation
from lethe.data.template import Row, Template
from lethe.errors import UserError
from tests.benchmarks.example_capitals.config import CapitalsBenchmark
from tests.benchmarks.example_capitals.task import CapitalsTask

CAPITALS = {
    "Ostravia": "Velmora",
    "Kelmund": "Dorvane",
    "Nuristad": "Iskerby",
    "Quarzil": "Tresmond",
    "Mirenda": "Lormis",
}


@dataclass(frozen=True)
class Capitals(Benchmark):
    """`forget` and `retain`: a question for each country's capital."""

    config: CapitalsBenchmark
    forget: tuple[Row, ...]
    retain: tuple[Row, ...]

    @classmethod
    def load(cls, config: CapitalsBenchmark) -> Self:
        """Make the rows. Raises UserError unless some are forgotten and some kept."""
        if config.forgotten >= len(CAPITALS):
            raise UserError(f"benchmark.forgotten is {config.forgotten}, there are {len(CAPITALS)} countries")
        rows = tuple(Row(f"What is the capital of {country}?", capital) for country, capital in CAPITALS.items())
        return cls(config, rows[: config.forgotten], rows[config.forgotten :])

    @property
    def digest(self) -> str:
        """Digest of all rows, in two parts."""
        parts = [[[row.question, row.answer] for row in part] for part in (self.forget, self.retain)]
        return short_digest(canonical_json(parts))

    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return every row, or those of the oracle."""
        return (*self.forget, *self.retain) if include_forget else self.retain

    def task(self, template: Template, vocabulary: int) -> CapitalsTask:
        """Return the rows as `template` renders them."""
        return CapitalsTask(self.forget, self.retain, template)

    @property
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Question and answer of each forget row."""
        return tuple((row.question, row.answer) for row in self.forget)

    def forget_count(self, config: Evaluation) -> int:
        """Return the number of forget rows."""
        return len(self.asked(config))

    @property
    def questions(self) -> list[tuple[str, Row]]:
        """The forget rows."""
        return [(f"row {number}", row) for number, row in enumerate(self.forget, 1)]

    @property
    def forget_questions(self) -> tuple[str, ...]:
        """Questions of the forget rows."""
        return tuple(row.question for row in self.forget)

    @property
    def retain_questions(self) -> tuple[str, ...]:
        """Questions of the retain rows."""
        return tuple(row.question for row in self.retain)

    def reference_metrics(self, own: Any, reference: Any) -> dict[str, float]:
        """Return the distance of two models' forget metrics."""
        return {"forget_gap": abs(own["forget"] - reference["forget"])}
