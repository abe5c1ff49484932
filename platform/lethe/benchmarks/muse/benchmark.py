"""MUSE behind the interface of `lethe.benchmarks.base`: data, capabilities, comparison of stored scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lethe.benchmarks.base import Benchmark
from lethe.benchmarks.muse.loading import MuseRows, kept, load_rows
from lethe.config.metrics import Need
from lethe.config.muse import MuseBenchmark
from lethe.data.template import Row
from lethe.evaluation.answer_length import refuse_wordless

if TYPE_CHECKING:
    from lethe.benchmarks.muse.evaluation import MuseTask
    from lethe.config.run import Evaluation
    from lethe.data.template import Template


@dataclass(frozen=True)
class Muse(Benchmark):
    """Documents, questions about them and texts that no model saw; models are compared with an oracle."""

    config: MuseBenchmark
    rows: MuseRows

    shown_samples: ClassVar[Mapping[str, int]] = {"forget_knowmem": 4, "forget_verbmem": 2, "utility": 2}

    @classmethod
    def load(cls, config: MuseBenchmark) -> Self:
        """Read all parts."""
        return cls(config, load_rows(config))

    @property
    def digest(self) -> str:
        """Digest of all parts, and of how they are measured."""
        return self.rows.digest

    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return the documents that a start model saw; without `include_forget` those that are kept."""
        return tuple(Row("", text) for text in (self.rows.trained if include_forget else kept(self.rows)))

    def task(self, template: Template, vocabulary: int) -> MuseTask:
        """Return the documents as `template`'s tokenizer reads them. `vocabulary` is not read: all rows are text."""
        from lethe.benchmarks.muse.evaluation import MuseTask  # imports torch

        return MuseTask(self.rows, template, self.config)

    @property
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Each document to forget."""
        return tuple((text,) for text in self.rows.forget)

    @property
    def earlier_texts(self) -> tuple[tuple[str, ...], ...]:
        """Each document of the earlier requests."""
        return tuple((text,) for text in self.rows.earlier)

    def texts(self, forget_only: bool) -> Iterator[str]:
        """Yield the documents, the passages of those to forget and what is asked about them, and what is asked about
        others unless `forget_only`."""
        yield from super().texts(forget_only)
        rows = self.rows
        yield from (*rows.earlier, *rows.members)
        yield from (text for passage in rows.verbmem for text in (passage.prompt, passage.gt))
        yield from (text for row in (*rows.forget_qa, *(() if forget_only else rows.retain_qa)) for text in row.texts)

    def forget_count(self, config: Evaluation) -> int:
        """Return the number of documents' beginnings that greedy text goes on from."""
        return len(config.chosen(self.rows.forget if self.rows.earlier else self.rows.verbmem))

    def check_rows(self, config: Evaluation) -> None:
        """Raise UserError for an evaluated answer without a word by the rule `config.rouge`, whose ROUGE would be 0
        whatever a model says."""
        parts = {
            "verbmem/forget": [row.gt for row in self.rows.verbmem],
            "knowmem/forget_qa": [row.answer for row in self.rows.forget_qa],
            "knowmem/retain_qa": [row.answer for row in self.rows.retain_qa],
        }
        for name, answers in parts.items():
            refuse_wordless(name, config.chosen(answers), config.rouge)

    def notes(self, config: Evaluation, template: Template) -> Iterator[str]:
        """Yield a line if less is generated than published results have."""
        if config.max_new_tokens < self.config.verbmem_tokens:
            yield (
                f"VerbMem compares {config.max_new_tokens} tokens (run.evaluation.max_new_tokens), published results"
                f" {self.config.verbmem_tokens}"
            )

    def reference_metrics(self, own: Any, reference: Any) -> dict[str, float]:
        """Return the distance to an oracle and, with holdout texts, privacy leakage against it. Raises UserError for an
        oracle that was scored on other rows."""
        from lethe.benchmarks.muse.metrics import MuseScores, reference_metrics  # imports torch

        model, oracle = MuseScores.load(own), MuseScores.load(reference)
        oracle.check(model.digest)
        return reference_metrics(model, oracle)

    @property
    def missing(self) -> tuple[Need, ...]:
        """Optional parts that these data do not have."""
        earlier = bool(self.rows.earlier)
        there = {"holdout": bool(self.rows.holdout), "forget_qa": not earlier, "earlier": earlier}
        return tuple(name for name, given in there.items() if not given)

    @property
    def has_holdout(self) -> bool:
        """True if there are holdout texts."""
        return bool(self.rows.holdout)
