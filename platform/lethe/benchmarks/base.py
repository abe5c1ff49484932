"""The interface between a benchmark and the rest of lethe.

A benchmark is a folder beside this file. It has three parts:

- its configuration, a `BenchmarkConfig` in `lethe.config.benchmark`, which names the metrics and the capabilities;
- a `Benchmark`: the data as they are read from their source. No tokenizer and no torch are needed for it, so that a
  study can be refused before anything expensive starts;
- a `Task`: the same data as one tokenizer reads them, with the evaluation of a model.

Code outside of its folder does not ask which benchmark is studied (a comparison's columns are chosen by name). Inside a
study the order of calls is `load_benchmark`, `Benchmark.task`, `Task.eval_set` (once per study), `Task.baseline` (start
model and oracle), `Task.reference_values`, `Task.evaluate` (every trial).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from lethe.config.benchmark import BenchmarkConfig, Role
from lethe.config.metrics import Need
from lethe.errors import UserError
from lethe.evaluation.rows import Columns

if TYPE_CHECKING:
    from torch import nn

    from lethe.config.run import Evaluation
    from lethe.data.template import Encoded, Row, Template
    from lethe.evaluation.distributed import RankShard


SATURATED = 100.0  # nats a token; assumption: no trained or forgotten model is that wrong on every row


class ReferenceValues(ABC):
    """Values of one model that other models are compared with; only their own benchmark reads them."""

    @abstractmethod
    def dump(self) -> Any:
        """Return the values as JSON (with Python's NaN and infinities), for `Benchmark.reference`."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The outcome of one evaluation, equal on every rank.

    `metrics`: flat and finite, whatever the model gives. `finite`: the model's likelihoods were numbers; a model for
    which they were not is a diverged one. `forgotten`: the benchmark's criterion to stop by holds, or before the last
    evaluation, and on a share of the rows, may hold; None where it has no criterion. `rows`: columns of values of every
    evaluated row, as in a run's parquet file. `reference`: what other models may be compared with, if this model is the
    one to compare with.
    """

    metrics: dict[str, float]
    finite: bool
    forgotten: bool | None = None
    rows: Columns = field(default_factory=dict)
    reference: ReferenceValues | None = None

    @property
    def fault(self) -> str:
        """The fault that makes the metrics meaningless, in words; empty for a model that predicts anything.

        A model that knows nothing gives every token the same probability: log(vocabulary) nats, 12.5 for the largest.
        """
        if not self.finite:
            return "its likelihoods are not numbers"
        losses = [loss for loss in self.rows.get("loss", ()) if loss is not None]
        if losses and not min(losses) < SATURATED:
            return f"its likelihoods are saturated: every answer costs more than {SATURATED:g} nats a token"
        return ""


class EvalSet(Protocol):
    """Everything that an evaluation reads, tokenised."""

    @property
    def template(self) -> Template:
        """The template that made the prompts."""

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield every row with a name for messages."""


EvalSetT = TypeVar("EvalSetT", bound=EvalSet)
ReferenceT = TypeVar("ReferenceT", bound=ReferenceValues)


class Task(ABC, Generic[EvalSetT, ReferenceT]):
    """A benchmark as one tokenizer reads it: rows to train on, and the evaluation of a model."""

    # Fewest tokens that are scored of a row. Two where an end-of-sequence token follows the answer: an answer of which
    # the tokenizer makes nothing has that token alone.
    least_tokens: ClassVar[int] = 2

    template: Template  # renders the prompts

    @property
    @abstractmethod
    def forget(self) -> list[Encoded]:
        """All forget rows that a run may train on."""

    @property
    @abstractmethod
    def retain(self) -> list[Encoded]:
        """All retain rows that a run may train on."""

    def training_rows(self, include_forget: bool) -> list[Encoded]:
        """Return the rows that a start model is fine-tuned on; without `include_forget` those of its oracle. TOFU's
        forget sets follow their retain rows, so that all of them have one start model."""
        return [*self.retain, *(self.forget if include_forget else ())]

    @property
    def until_forgotten(self) -> bool:
        """True if a run ends after the first evaluation whose result is `forgotten`."""
        return False

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield the rows of `forget` and `retain` with names for messages."""
        for name, rows in (("forget", self.forget), ("retain", self.retain)):
            yield from ((f"row {number} of {name}", row) for number, row in enumerate(rows, 1))

    # Evaluation

    @abstractmethod
    def eval_set(self, config: Evaluation) -> EvalSetT:
        """Tokenise everything that an evaluation with `config` reads."""

    @abstractmethod
    def _evaluate(
        self,
        model: nn.Module,
        evals: EvalSetT,
        config: Evaluation,
        reference: ReferenceT | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        """Measure the benchmark's own metrics: see `evaluate`."""

    def evaluate(
        self,
        model: nn.Module,
        evals: EvalSetT,
        config: Evaluation,
        reference: ReferenceT | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        """Measure every metric of `model`, in its own dtype and on its own device; its modes and weights are left as
        they were.

        `reference` are the values to compare with, None where there are none. Each rank that `shard` counts holds the
        whole model and does its part; the result is the same on every rank. `last` is true for a run's last evaluation,
        which measures what is too expensive for the others, too. Raises UserError for rows that the model cannot read
        and for a reference that belongs to other rows.
        """
        result = self._evaluate(model, evals, config, reference, shard, last=last)
        return self._with_harness_tasks(result, model, config, shard)

    def baseline(self, model: nn.Module, evals: EvalSetT, config: Evaluation, shard: RankShard) -> EvaluationResult:
        """Evaluate a model that is not trained, start model or oracle: a last evaluation whose result has a
        `reference`. What compares it with others is computed from both models' stored values."""
        return self.evaluate(model, evals, config, None, shard, last=True)

    @abstractmethod
    def reference_values(self, stored: Any, evals: EvalSetT) -> ReferenceT | None:
        """Read what `Benchmark.reference` gave; None for None. Raises UserError if it belongs to other rows than
        `evals`, or to another version of lethe."""

    def _with_harness_tasks(
        self, result: EvaluationResult, model: nn.Module, config: Evaluation, shard: RankShard
    ) -> EvaluationResult:
        """Add the tasks of lm-evaluation-harness that `config` names."""
        if config.lm_eval is None:
            return result
        from lethe.evaluation.lm_eval import measure_tasks

        return replace(result, metrics={**result.metrics, **measure_tasks(model, self.template, config, shard)})

    # Audits

    @abstractmethod
    def evaluated_forget(self, config: Evaluation) -> Sequence[Encoded]:
        """Return the forget rows that an evaluation with `config` measures."""

    @property
    def holdout(self) -> Sequence[Encoded]:
        """Rows that no model was trained on; may be empty."""
        return ()

    @abstractmethod
    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: ReferenceT | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure the configuration's `leaks` on the `chosen` of the rows of `evaluated_forget`, and nothing else."""


AnyTask = Task[Any, Any]


class Benchmark(ABC):
    """The data of one benchmark as they were read with `config`, and what they offer to a study."""

    config: BenchmarkConfig

    # Split -> number of its first rows that are shown to people, with the true and the generated answer.
    shown_samples: ClassVar[Mapping[str, int]] = {"forget": 4}

    @classmethod
    @abstractmethod
    def load(cls, config: Any) -> Self:
        """Read the data that `config`, of the benchmark's own configuration class, names. Raises UserError that names
        what is missing or malformed, and where."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """16 hex digits over everything that is trained on or evaluated, wherever it was read from."""

    @abstractmethod
    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return the rows that a model of the embedded family is trained on, in order; without `include_forget` those
        of its oracle. A row without a question is plain text. Raises UserError for data without text."""

    @abstractmethod
    def task(self, template: Template, vocabulary: int) -> AnyTask:
        """Return the benchmark as `template`'s tokenizer reads it, for a model with `vocabulary` token ids. Raises
        UserError for rows that they cannot represent."""

    @property
    def has_oracle(self) -> bool:
        """True if models are compared with one that never saw the forget rows."""
        return "oracle" in self.config.compared_with

    @property
    def has_questions(self) -> bool:
        """True if the forget rows are questions with answers; false unless the configuration `has_questions`."""
        return self.config.has_questions

    @property
    @abstractmethod
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Texts of each row of the request, in order: a question and its answer, or a document alone. They name the
        rows in a deletion record, as salted hashes."""

    @property
    def earlier_texts(self) -> tuple[tuple[str, ...], ...]:
        """Texts, as in `forget_texts`, of the rows of earlier requests that evaluations measure."""
        return ()

    @abstractmethod
    def forget_count(self, config: Evaluation) -> int:
        """Return the number of forget rows that an evaluation with `config` measures."""

    def check_vocabulary(self, vocabulary: int | None) -> None:  # noqa: B027  # text has no token ids
        """Raise UserError for token ids that a model with `vocabulary` ids (None: unknown) does not have."""

    def check_context(self, tokens: int, name: str) -> None:
        """Raise UserError if the settings ask for longer rows than the `tokens` that the model called `name` takes."""
        length = self.config.sequence_length
        if tokens < length:
            raise UserError(f"benchmark.length is {length}, {name} takes {tokens} tokens")

    def reference(self, dumped: Mapping[Role, Any]) -> Any:
        """Return what models are compared with, as JSON, from the dumped reference values of a study's models; None
        where there is nothing to compare with. `Task.reference_values` reads it back."""
        return next((dumped[role] for role in self.config.compared_with if role in dumped), None)

    def reference_metrics(self, own: Any, reference: Any) -> dict[str, float]:
        """Return the metrics that compare a model, by its dumped reference values, with a `reference`, without a
        forward pass: so no model's stored scores depend on another's. Raises UserError for values that cannot be
        compared."""
        return {}

    def check_rows(self, config: Evaluation) -> None:  # noqa: B027  # most benchmarks have nothing to refuse
        """Raise UserError that names a row on which a metric of an evaluation with `config` would mean nothing."""

    def notes(self, config: Evaluation, template: Template) -> Iterator[str]:
        """Yield a line for each thing that an evaluation with `config` leaves out of these data, as `template`'s
        tokenizer reads them: for the console, a dry run and the report."""
        yield from ()

    def texts(self, forget_only: bool) -> Iterator[str]:
        """Yield the texts of all rows, or of those alone that are to be forgotten, with their variants. Where
        `privacy.text` says so, a study stores none of them."""
        yield from (text for row in self.forget_texts for text in row)
        if not forget_only:
            yield from (text for row in self.training_rows(include_forget=True) for text in row.texts)

    # Optional parts

    @property
    def missing(self) -> tuple[Need, ...]:
        """Splits that metrics need (`Metric.needs`) and these data do not have."""
        return ()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Texts that refuse to answer; may be empty."""
        return ()

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Other answers to each of `forget_questions`, in order; empty unless the configuration asks for them, and
        where the start model makes them."""
        return ()

    @property
    def forget_questions(self) -> tuple[str, ...]:
        """Question of each row of `Task.forget`, in order; empty unless these data have questions."""
        return ()

    @property
    def retain_questions(self) -> tuple[str, ...]:
        """Question of each row of `Task.retain`, in order; empty unless these data have questions."""
        return ()

    @property
    def questions(self) -> Sequence[tuple[str, Row]]:
        """The forget rows that evaluations ask for, each with a name for messages; empty unless these data have
        questions."""
        return ()

    def asked(self, config: Evaluation) -> tuple[Row, ...]:
        """Return the forget rows that an evaluation with `config` asks for."""
        return tuple(row for _, row in config.chosen(self.questions))

    @property
    def has_holdout(self) -> bool:
        """True if `Task.holdout` has rows."""
        return False

    def samples(self, result: EvaluationResult) -> list[dict[str, str]]:
        """Return the first rows of the splits in `shown_samples`, as split, question, answer and generated answer,
        without those that lack one of them."""
        names = ("split", "question", "answer", "generated")
        if not result.rows.keys() >= {*names}:
            return []
        rows = [dict(zip(names, row, strict=True)) for row in zip(*(result.rows[name] for name in names), strict=True)]
        chosen = (
            row
            for split, count in self.shown_samples.items()
            for row in [row for row in rows if row["split"] == split][:count]
        )
        return [row for row in chosen if None not in row.values()]


def load_benchmark(config: BenchmarkConfig) -> Benchmark:
    """Read the benchmark that `config` describes. Raises UserError as `Benchmark.load` does."""
    return implementation(type(config)).load(config)


def implementation(config: type[BenchmarkConfig]) -> type[Benchmark]:
    """Return the class that a configuration class names as its implementation. Entry points are resolved here only."""
    module, _, name = config.implementation.partition(":")
    found: type[Benchmark] = getattr(import_module(module), name)
    return found
