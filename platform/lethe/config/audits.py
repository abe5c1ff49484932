"""Audits of finished models, which tell rows that are forgotten from rows that are only hidden (docs/METHODS.md
section 8).

To add one, define a subclass of `Audit` here and implement it in `lethe.audits`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from lethe.config.adapter import FullParameters, Lora
from lethe.config.base import Frozen
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.component import AsRegistered
from lethe.config.metrics import Metric
from lethe.errors import UserError

Source = Literal["forget", "retain", "holdout"]
AuditKind = Literal["paraphrase", "prefix", "first_words"]
Bits = Annotated[int, Field(ge=2, le=8)]

# Each is put in front of a question alone; none says anything about what follows.
PREFIXES = (
    "Here is a question for you:",
    "Please answer as well as you can.",
    "I would like to know the following.",
    "Question 1:",
)

FULL = ("forget", "utility")  # metrics that only a whole evaluation gives
QUESTION_LEAKS = ("forget_probability", "forget_rouge", "forget_extraction_strength")  # of answers to questions


class AuditedData(Protocol):
    """The part of `lethe.benchmarks.base.Benchmark` that an audit may require something of."""

    @property
    def has_holdout(self) -> bool:
        """True if there are rows that no model was trained on."""

    def row_without_paraphrase(self) -> str | None:
        """Return the name of the first evaluated forget row whose question has no paraphrase; None if all have one."""


class Audits(Frozen):
    """The audits of a study by name, None for one that is not asked for. Every subclass of `Audit` is a field."""

    def asked(self) -> dict[str, Audit]:
        """Return the audits that are asked for, by name."""
        audits = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: audit for name, audit in audits.items() if audit is not None}


class Audit(Frozen):
    """The kind of all audits. Each is done to a finished model in one or several variants.

    `registered`: all audits by name. `name`: the key in `Audits`. `meanings`: every variant that it has, with a line
    for reports, in the reports' order. `needs_questions`: forget rows are questions with answers.
    """

    registered: ClassVar[dict[str, type[Audit]]] = {}
    name: ClassVar[str]
    meanings: ClassVar[Mapping[str, str]]
    needs_questions: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Register the audit: it becomes a field of `Audits`. Raises ValueError where another audit has its name."""
        super().__pydantic_init_subclass__(**options)
        if cls.name in cls.registered:
            raise ValueError(f"{cls.__name__}: the name {cls.name!r} belongs to {cls.registered[cls.name].__name__}")
        cls.registered[cls.name] = cls
        optional: Any = cls | None
        Audits.__pydantic_fields__[cls.name] = FieldInfo(annotation=optional, default=None)
        Audits.model_rebuild(force=True)

    @model_validator(mode="after")
    def _some_and_each_once(self) -> Self:
        for name, given in vars(self).items():
            if given == ():
                raise ValueError(f"{name}: none is given: leave the audit out instead")
            if isinstance(given, tuple) and len(set(given)) < len(given):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, given))}")
        return self

    def variants(self) -> tuple[str, ...]:
        """Return the variants that this audit tries: one record each."""
        return tuple(self.meanings)

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return the metrics in the records of a variant, by name, for models of this benchmark: its leaks."""
        return {name: benchmark.metrics[name] for name in benchmark.leaks}

    def narrowed(self, wanted: Collection[str]) -> Self:
        """Return this audit with no other than the `wanted` of its variants, as far as its lists allow: an item goes
        where its variants go with it."""
        fewer = self
        for name, given in vars(self).items():
            for item in given if isinstance(given, tuple) else ():
                left = tuple(other for other in getattr(fewer, name) if other != item)
                tried = fewer.model_copy(update={name: left})
                if {*wanted} & {*fewer.variants()} <= {*tried.variants()} < {*fewer.variants()}:
                    fewer = tried
        return fewer

    def cost(self) -> str:
        """Return what this audit of one model costs, in words, for a dry run."""
        return f"{len(self.variants())} x an evaluation of the forget rows"

    def check_benchmark(self, benchmark: BenchmarkConfig) -> None:
        """Raise UserError for settings that no data of this benchmark allow."""

    def check_data(self, data: AuditedData, source: str, forget_rows: int) -> None:
        """Raise UserError for settings that these data do not allow: they were read from `source`, and so many of their
        forget rows are evaluated."""


class Relearning(Audit):
    """A few optimizer steps (AdamW, the likelihood of the answers), after which the other forget rows are measured.

    Rows cannot bring back what was never known and they do not say: compare with the oracle, which learns the same
    rows. Benign relearning: Hu et al. 2024, arXiv 2406.13356.
    """

    name: ClassVar[str] = "relearning"
    meanings: ClassVar[Mapping[str, str]] = {
        "relearn": "after a few steps on a part of the forget rows; only the others count",
        "relearn_retain": "after a few steps on retain rows",
        "relearn_holdout": "after a few steps on rows that no model was trained on",
    }

    rows: tuple[Source, ...] = Field(
        ("forget", "retain"), description="learned in turn, each by the finished model: unrelated rows too"
    )
    share: float = Field(0.2, gt=0, le=0.5, description="of the forget rows; as many of the others")
    steps: int = Field(10, ge=1, description="optimizer steps")
    batch_size: int = Field(4, ge=1, description="rows in a step")
    learning_rate: float = Field(3e-4, gt=0, description="of AdamW")
    adapter: Annotated[FullParameters | Lora, Field(discriminator="name")] = FullParameters()

    @staticmethod
    def variant(source: Source) -> str:
        """Return the name of the variant that learns these rows."""
        return "relearn" if source == "forget" else f"relearn_{source}"

    def variants(self) -> tuple[str, ...]:
        """Return a variant for each of `rows`."""
        return tuple(map(self.variant, self.rows))

    def cost(self) -> str:
        """Return the steps and the evaluations in words."""
        return f"{len(self.variants())} x ({self.steps} optimizer steps and an evaluation of the forget rows)"

    def check_benchmark(self, benchmark: BenchmarkConfig) -> None:
        """Raise UserError for holdout rows, if the benchmark has none."""
        if "holdout" in self.rows and not benchmark.has_holdout:
            raise UserError(
                f"audits.relearning.rows: holdout: {benchmark.name} has no such rows: choose from forget, retain"
            )

    def check_data(self, data: AuditedData, source: str, forget_rows: int) -> None:
        """Raise UserError for a single forget row, and for holdout rows that are not there."""
        if forget_rows < 2:
            raise UserError(
                "audits.relearning: one forget row is evaluated, and its audit learns one and asks for another"
            )
        if "holdout" in self.rows and not data.has_holdout:
            raise UserError(
                f"audits.relearning.rows: holdout: {source} has no holdout rows: choose from forget, retain"
            )


class Quantisation(Audit):
    """Weights of linear layers rounded to so many bits: symmetric, per output channel, to the nearest; the head and the
    embedding stay. Small changes of weights can be lost in the rounding: Zhang et al. 2024, arXiv 2410.16454."""

    name: ClassVar[str] = "quantisation"
    meanings: ClassVar[Mapping[str, str]] = {
        f"quant{bits}": f"with weights rounded to {bits} bits" for bits in range(8, 1, -1)
    }

    bits: tuple[Bits, ...] = Field((8, 4), description="each is tried alone")

    def variants(self) -> tuple[str, ...]:
        """Return a variant for each of `bits`."""
        return tuple(f"quant{bits}" for bits in self.bits)

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return the leaks and what only a whole evaluation gives."""
        return {name: benchmark.metrics[name] for name in (*FULL, *benchmark.leaks)}

    def cost(self) -> str:
        """Return the number of evaluations in words."""
        return f"{len(self.variants())} x a whole evaluation"


class Prompts(Audit):
    """The forget questions, asked in other ways.

    `paraphrase`: in other words; `prefix`: after the one of `prefixes` that brings out most; `first_words`: with the
    first `words` words of the answer given, of which the rest counts.
    """

    name: ClassVar[str] = "prompts"
    needs_questions: ClassVar[bool] = True
    meanings: ClassVar[Mapping[str, str]] = {
        "paraphrase": "asked in other words",
        "prefix": "asked after a neutral sentence, the one that brings out most",
        "first_words": "with the first words of the answer given; only the rest counts",
    }

    kinds: tuple[AuditKind, ...] = Field(("paraphrase", "prefix", "first_words"), description="ways to ask")
    prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(PREFIXES, description="sentences for prefix")
    words: int = Field(3, ge=1, description="words of the answer for first_words")

    def variants(self) -> tuple[str, ...]:
        """Return the `kinds`."""
        return self.kinds

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return the leaks of questions; with the first words given, ROUGE alone."""
        names = ("forget_rouge",) if variant == "first_words" else QUESTION_LEAKS
        return {name: benchmark.metrics[name] for name in names}

    def check_data(self, data: AuditedData, source: str, forget_rows: int) -> None:
        """Raise UserError for a forget row without a paraphrase, if paraphrases are asked."""
        lacking = data.row_without_paraphrase() if "paraphrase" in self.kinds else None
        if lacking is not None:
            raise UserError(
                f"audits.prompts.kinds: paraphrase: {lacking} in {source} has no paraphrased_question: choose from"
                " first_words, prefix"
            )


AnyAudits = Annotated[Audits, AsRegistered()]


def variant_meanings() -> dict[str, str]:
    """Return every variant of every audit with its meaning, in the order of reports."""
    return {variant: line for audit in Audit.registered.values() for variant, line in audit.meanings.items()}


def variants(audits: Audits) -> Iterator[str]:
    """Yield the variants that the audits try, in the order of reports."""
    tried = {variant for audit in audits.asked().values() for variant in audit.variants()}
    return (variant for variant in variant_meanings() if variant in tried)


def metric_name(variant: str, metric: str) -> str:
    """Return the name of an audit's metric in MLflow, in a registered model's tags and in trials.csv."""
    return f"audit_{variant}_{metric}"
