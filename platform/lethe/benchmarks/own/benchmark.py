"""One's own rows behind the interface of `lethe.benchmarks.base`: data and capabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lethe.benchmarks.base import Benchmark
from lethe.benchmarks.own.loading import PartName, alternatives_of, digest_of, load_parts
from lethe.config.benchmark import Role
from lethe.config.metrics import Need
from lethe.config.own import OwnBenchmark
from lethe.data.source_rows import Chat, Completion, Document, Question, SourceRow
from lethe.data.sources import Source
from lethe.data.template import Row
from lethe.errors import UserError
from lethe.evaluation.answer_length import cut_answers
from lethe.evaluation.metrics import reference_words

if TYPE_CHECKING:
    from lethe.benchmarks.own.evaluation import OwnTask
    from lethe.config.run import Evaluation
    from lethe.data.template import Template

PRIVATE: tuple[PartName, ...] = ("forget", "earlier")  # parts of which a study may have to store no text
UNCLAIMED = (
    "there is no benchmark.holdout: whether the forgotten rows still stand out as trained on (membership), or are known"
    " better than unseen rows, cannot be said, and no verdict says it; retain rows, trained on, are no comparison"
)


@dataclass(frozen=True)
class Own(Benchmark):
    """Rows to forget and to keep; models are compared with unseen rows and with other models, if there are such."""

    config: OwnBenchmark
    parts: Mapping[PartName, Source]
    alternatives: tuple[tuple[str, ...], ...] = ()

    shown_samples: ClassVar[Mapping[str, int]] = {"forget": 4, "retain": 2}

    @classmethod
    def load(cls, config: OwnBenchmark) -> Self:
        """Read all parts."""
        parts = load_parts(config)
        return cls(config, parts, alternatives_of(config, parts))

    @cached_property
    def digest(self) -> str:
        """Digest of the rows of all parts, and of how documents are read."""
        return digest_of(self.config, self.parts, self.alternatives)

    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return retain and forget rows; prompts with completions and documents are plain text. Raises UserError for
        conversations of several turns, for which an embedded model has no template."""
        rows = (*self.parts["retain"].rows, *(self.parts["forget"].rows if include_forget else ()))
        return tuple(map(_plain_row, rows))

    def task(self, template: Template, vocabulary: int) -> OwnTask:
        """Return the rows as `template` renders them. `vocabulary` is not read: all rows are text."""
        from lethe.benchmarks.own.evaluation import OwnTask  # imports torch

        return OwnTask(self.parts, template, self.config, self.digest)

    @property
    def has_questions(self) -> bool:
        """True if the rows to forget are questions."""
        return self.parts["forget"].kind == "questions"

    @property
    def has_holdout(self) -> bool:
        """True if there are holdout rows."""
        return "holdout" in self.parts

    @property
    def missing(self) -> tuple[Need, ...]:
        """Parts, and columns of the rows to forget, that are not given."""
        absent = tuple(name for name in ("holdout", "general", "earlier") if name not in self.parts)
        wrong = any(row.perturbed_answers for row in self.parts["forget"].rows if not isinstance(row, Document))
        return absent if wrong else (*absent, "wrong_answers")

    @property
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Texts of each forget row, as they were given: rows with equal texts are one row."""
        return tuple(_texts(row) for row in self.parts["forget"].rows)

    def texts(self, forget_only: bool) -> Iterator[str]:
        """Yield the texts of all rows, or of those alone that are to be forgotten or were, with their variants and
        alternatives."""
        yield from (text for texts in self.alternatives for text in texts)
        for name, part in self.parts.items():
            for row in part.rows if name in PRIVATE or not forget_only else ():
                yield from (*_texts(row), *_variants(row))

    @property
    def earlier_texts(self) -> tuple[tuple[str, ...], ...]:
        """Texts of each row of earlier requests, likewise."""
        return tuple(_texts(row) for row in self.parts["earlier"].rows) if "earlier" in self.parts else ()

    def forget_count(self, config: Evaluation) -> int:
        """Return the number of forget rows that are evaluated."""
        return len(config.chosen(self.parts["forget"].rows))

    @property
    def forget_questions(self) -> tuple[str, ...]:
        """Questions of the forget rows, if they are questions."""
        return tuple(row.question for row in self._questions("forget"))

    @property
    def retain_questions(self) -> tuple[str, ...]:
        """Questions of the retain rows, if forget and retain rows are questions."""
        return tuple(row.question for row in self._questions("retain")) if self.has_questions else ()

    @property
    def questions(self) -> Sequence[tuple[str, Row]]:
        """The forget rows, if they are questions."""
        return [(row.name, row) for row in self._questions("forget")]

    def _questions(self, part: PartName) -> tuple[Question, ...]:
        return tuple(row for row in self.parts[part].rows if isinstance(row, Question))

    def check_context(self, tokens: int, name: str) -> None:
        """Raise UserError if windows of documents are longer than what the model called `name` takes."""
        documents = any(part.kind == "documents" for part in self.parts.values())
        if documents and self.config.window > tokens:
            raise UserError(f"benchmark.window is {self.config.window}, {name} takes {tokens} tokens: lower it")

    def check_rows(self, config: Evaluation) -> None:
        """Raise UserError for an evaluated row without a word, whose ROUGE would be 0 whatever a model says. The
        message has the row's name and none of its text."""
        for name, part in self.parts.items():
            for row in config.chosen(part.rows) if name != "general" else ():
                if not reference_words(row.text if isinstance(row, Document) else row.answer, config.rouge)[1]:
                    raise UserError(
                        f"benchmark.{name}: {row.name} has no word for ROUGE: it needs a letter, a digit or a symbol"
                    )

    def notes(self, config: Evaluation, template: Template) -> Iterator[str]:
        """Yield what was merged or left out of the sources, what cannot be claimed without a holdout or with a small
        one, and how many answers are longer than generated ones can be."""
        for part in self.parts.values():
            yield from part.notes
        if not self.has_holdout:
            yield UNCLAIMED
        else:
            yield self._chance(config)
        rows = [row for name in ("forget", "retain") for row in config.chosen(self.parts[name].rows)]
        asked = [(row.question, row.answer) for row in rows if isinstance(row, Question | Chat)]
        yield from cut_answers(asked, config, template)

    def _chance(self, config: Evaluation) -> str:
        from lethe.benchmarks.own.metrics import chance  # imports torch

        forget, holdout = (len(config.chosen(self.parts[name].rows)) for name in ("forget", "holdout"))
        most = chance(forget, holdout)
        return (
            f"membership is measured on {forget} forget and {holdout} holdout rows: by chance alone its AUC lies"
            f" between {0.5 - most:.2f} and {0.5 + most:.2f}; more rows tell more"
        )

    def reference(self, dumped: Mapping[Role, Any]) -> Any:
        """Return the values of all models, by role."""
        return {role: dumped[role] for role in self.config.compared_with if role in dumped} or None

    def reference_metrics(self, own: Any, reference: Any) -> dict[str, float]:
        """Return everything that a model has beside holdout rows and other models. Raises UserError for models that
        were scored on other rows."""
        from lethe.benchmarks.own.metrics import Measured, References, compared  # imports torch

        model = Measured.load(own)
        return compared(model, References.load(reference, model.data))


def _texts(row: SourceRow) -> tuple[str, ...]:
    if isinstance(row, Document):
        return (row.text,)
    if isinstance(row, Chat):
        return (*(text for _, text in row.question), row.answer)
    return (row.prompt if isinstance(row, Completion) else row.question, row.answer)


def _variants(row: SourceRow) -> Iterator[str]:
    if isinstance(row, Document):
        return
    others = [row.paraphrased_answer, row.paraphrased_question if isinstance(row, Question) else None]
    yield from (*filter(None, others), *row.perturbed_answers)


def _plain_row(row: SourceRow) -> Row:
    if isinstance(row, Question):
        return Row(row.question, row.answer)
    if isinstance(row, Completion):
        return Row("", row.prompt + row.answer)
    if isinstance(row, Document):
        return Row("", row.text)
    if [role for role, _ in row.question] != ["user"]:
        raise UserError(f"model.name: {row.name} has several turns, which an embedded model does not read")
    return Row(row.question[0][1], row.answer)
