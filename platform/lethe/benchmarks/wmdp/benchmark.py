"""WMDP behind the interface of `lethe.benchmarks.base`: data and capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from lethe.benchmarks.base import Benchmark
from lethe.benchmarks.wmdp.loading import WmdpRows, load_rows
from lethe.config.wmdp import WmdpBenchmark
from lethe.data.template import Row

if TYPE_CHECKING:
    from lethe.benchmarks.wmdp.evaluation import WmdpTask
    from lethe.config.run import Evaluation
    from lethe.data.template import Template


@dataclass(frozen=True)
class Wmdp(Benchmark):
    """Documents, and multiple-choice questions about what they say; models are compared with chance."""

    config: WmdpBenchmark
    rows: WmdpRows

    shown_samples: ClassVar[Mapping[str, int]] = {"forget_questions": 4, "utility_questions": 2}

    @classmethod
    def load(cls, config: WmdpBenchmark) -> Self:
        """Read the documents and store the task files."""
        return cls(config, load_rows(config))

    @property
    def digest(self) -> str:
        """Digest of the documents, the user's own task files and the names of all tasks."""
        return self.rows.digest

    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return all documents; without `include_forget` those that are kept."""
        return tuple(Row("", text) for text in (*self.rows.retain, *(self.rows.forget if include_forget else ())))

    def task(self, template: Template, vocabulary: int) -> WmdpTask:
        """Return the documents as `template`'s tokenizer reads them. `vocabulary` is not read: all rows are text."""
        from lethe.benchmarks.wmdp.evaluation import WmdpTask  # imports torch

        return WmdpTask(self.rows, template, self.config)

    @property
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Each document to forget."""
        return tuple((text,) for text in self.rows.forget)

    def forget_count(self, config: Evaluation) -> int:
        """Return the number of documents to forget that are scored."""
        return len(config.chosen(self.rows.forget))
