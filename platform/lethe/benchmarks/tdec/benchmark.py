"""TDEC behind the interface of `lethe.benchmarks.base`: data and capabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from lethe.benchmarks.base import Benchmark
from lethe.benchmarks.tdec.loading import (
    SPLITS,
    Passages,
    check_ids,
    load_passages,
    texts_read,
    tokenised,
    training_rows,
)
from lethe.config.benchmark import TdecBenchmark
from lethe.data.template import Row

if TYPE_CHECKING:
    from lethe.benchmarks.tdec.evaluation import TdecTask
    from lethe.config.run import Evaluation
    from lethe.data.template import Template


@dataclass(frozen=True)
class Tdec(Benchmark):
    """Passages of text or token ids; models are compared with the start model."""

    config: TdecBenchmark
    passages: Passages

    shown_samples: ClassVar[Mapping[str, int]] = {"forget": 4, "dialogue": 2}

    @classmethod
    def load(cls, config: TdecBenchmark) -> Self:
        """Read all parts."""
        return cls(config, load_passages(config))

    @property
    def digest(self) -> str:
        """Digest of all parts, and of how they are measured."""
        return self.passages.digest

    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return plain text, memorised passages repeated. Raises UserError for token ids."""
        return training_rows(self.passages, include_forget)

    def texts(self, forget_only: bool) -> Iterator[str]:
        """Yield the passages, and with all rows dialogues and questions with their choices."""
        yield from (text for row in self.forget_texts for text in row)
        if not forget_only:
            yield from (row for split in SPLITS for row in getattr(self.passages, split) if isinstance(row, str))
            yield from (text for turn in self.passages.dialogue for text in (turn.context, turn.response))
            yield from (text for asked in self.passages.choice for text in (asked.question, *asked.choices))

    def task(self, template: Template, vocabulary: int) -> TdecTask:
        """Return the passages as token ids. Raises UserError for text that is too short and for foreign token ids."""
        from lethe.benchmarks.tdec.evaluation import TdecTask  # imports torch

        sequences = tokenised(self.passages, template, vocabulary)
        return TdecTask(self.passages, sequences, template, self.config)

    @property
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Each forget sequence as it was given: text, or token ids with spaces between them."""
        texts = (row if isinstance(row, str) else " ".join(map(str, row)) for row in self.passages.forget)
        return tuple((text,) for text in texts)

    def forget_count(self, config: Evaluation) -> int:
        """Return the number of forget sequences."""
        return len(self.passages.forget)

    def notes(self, config: Evaluation, template: Template) -> Iterator[str]:
        """Yield what of the texts is not read, and how many replies are longer than generated ones can be."""
        if len(self.passages.forget) < self.config.sequences:
            yield f"benchmark.sequences is {self.config.sequences}: all {len(self.passages.forget)} texts are forgotten"
        if read := texts_read(self.passages, template):
            remedy = "benchmark.texts: whole reads all"
            yield f"the first {self.passages.length} tokens of a text are read: {'; '.join(read)} ({remedy})"
        replies = [template.continuation(turn.context, turn.response).answer for turn in self.passages.dialogue]
        long = [len(ids) for ids in config.chosen(replies) if len(ids) > config.max_new_tokens]
        if long:
            most = f"run.evaluation.max_new_tokens, {config.max_new_tokens}"
            yield f"{len(long)} of {len(replies)} replies are longer than {most}, the longest has {max(long)} tokens"

    def check_vocabulary(self, vocabulary: int | None) -> None:
        """Raise UserError that names split and row for a token id that is not in the vocabulary."""
        check_ids(self.passages, vocabulary)
