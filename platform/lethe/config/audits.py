"""Audits of finished models, which tell rows that are forgotten from rows that are only hidden (docs/METHODS.md
section 8).

To add one, define a subclass of `Audit` here, or in a module that this one imports, and implement it in `lethe.audits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, PlainValidator, WithJsonSchema

from lethe.config.adapter import FullParameters, Lora
from lethe.config.answer_audits import Format, LogitLens, Sampling
from lethe.config.audit import QUESTION_LEAKS, Audit, AuditedData, Audits, audit_metrics
from lethe.config.base import OMITTED_AT_DEFAULT
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.component import AsRegistered
from lethe.config.metrics import Metric
from lethe.errors import UserError

__all__ = ["Audit", "AuditedData", "Audits", "Format", "LogitLens", "Sampling"]

Source = Literal["forget", "half", "retain", "holdout", "text"]
Learner = Literal["full", "lora"]
OTHER_ROWS = "forget, half, retain, text"  # than holdout rows, which not all data have
AuditKind = Literal["paraphrase", "prefix", "first_words"]
SERVER_FORMATS = {
    "nf4": "with weights in NF4, as bitsandbytes has them: blocks of 64, double quantisation",
    "int8": "with weights and their layers' inputs in int8, as LLM.int8() of bitsandbytes has them",
    "nf4_adapter": "with the adapter beside a base in NF4, as servers of QLoRA have it; without an adapter as nf4",
}


def _bits(given: Any) -> int | str:
    """Return a number of bits or a server's format. Raises ValueError for anything else."""
    whole = isinstance(given, int) and not isinstance(given, bool)
    if not (2 <= given <= 8 if whole else given in [*SERVER_FORMATS]):
        raise ValueError(f"must be a whole number from 2 to 8, or one of {', '.join(SERVER_FORMATS)}, given {given!r}")
    found: int | str = given
    return found


_GRID: dict[str, Any] = {"type": "integer", "minimum": 2, "maximum": 8}
Bits = Annotated[int | str, PlainValidator(_bits), WithJsonSchema({"anyOf": [_GRID, {"enum": [*SERVER_FORMATS]}]})]

# Each is put in front of a question alone; none says anything about what follows.
PREFIXES = (
    "Here is a question for you:",
    "Please answer as well as you can.",
    "I would like to know the following.",
    "Question 1:",
)

FULL = ("forget", "utility")  # metrics that only a whole evaluation gives


def _relearned(source: Source, learner: Learner) -> str:
    """Return the name of the variant that learns these rows so."""
    return "_".join(["relearn", *([] if source == "forget" else [source]), *(["lora"] if learner == "lora" else [])])


class Relearning(Audit):
    """A few optimizer steps (AdamW, the likelihood of the answers), after which the other forget rows are measured.

    Rows cannot bring back what was never known and they do not say: compare with the oracle, which learns the same
    rows. Benign relearning: Hu et al. 2024, arXiv 2406.13356.
    """

    name: ClassVar[str] = "relearning"
    null_in_digests: ClassVar[bool] = True
    sources: ClassVar[Mapping[Source, str]] = {
        "forget": "after a few steps on a part of the forget rows; only the others count",
        "half": "after a few steps on half of the forget rows; only the other half counts",
        "retain": "after a few steps on retain rows",
        "holdout": "after a few steps on rows that no model was trained on",
        "text": "after a few steps on text that has nothing to do with the rows: facts about the world",
    }
    meanings: ClassVar[Mapping[str, str]] = {
        _relearned(source, learner): f"{meaning}{', by LoRA' if learner == 'lora' else ''}"
        for source, meaning in sources.items()
        for learner in get_args(Learner)
    }

    rows: tuple[Source, ...] = Field(
        ("forget", "retain"),
        description="learned in turn, each by the finished model: unrelated rows too. half: half of the forget rows, "
        "whatever share is; text: general text that comes with lethe",
    )
    share: float = Field(0.2, gt=0, le=0.5, description="of the forget rows; as many of the others")
    steps: int = Field(10, ge=1, description="optimizer steps")
    batch_size: int = Field(4, ge=1, description="rows in a step")
    learning_rate: float = Field(3e-4, gt=0, description="of AdamW")
    adapter: Annotated[FullParameters | Lora, Field(discriminator="name")] = FullParameters()
    adapters: tuple[Learner, ...] | None = Field(
        None,
        description="full: by all weights; lora: by a LoRA; each in turn, as variants; none: by `adapter` alone",
        json_schema_extra=OMITTED_AT_DEFAULT,
    )
    lora_learning_rate: float = Field(3e-3, gt=0, description="of AdamW where adapters has lora, which starts at zero")

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without LoRA's rate where that is not read, so that earlier audits keep their digests."""
        unread = () if self.adapters and "lora" in self.adapters else ("lora_learning_rate",)
        return {key: value for key, value in super().canonical_fields(dumped).items() if key not in unread}

    def learners(self) -> Iterator[tuple[str, Source, FullParameters | Lora, float]]:
        """Yield each variant with the rows that are learned, what learns them, and its learning rate."""
        for source in self.rows:
            for learner in self.adapters or ("full",):
                if learner == "lora":
                    lora = self.adapter if isinstance(self.adapter, Lora) else Lora()
                    yield _relearned(source, learner), source, lora, self.lora_learning_rate
                else:
                    trained = FullParameters() if self.adapters else self.adapter
                    yield _relearned(source, learner), source, trained, self.learning_rate

    def variants(self) -> tuple[str, ...]:
        """Return a variant for each of `rows` and `adapters`."""
        return tuple(variant for variant, *_ in self.learners())

    def cost(self) -> str:
        """Return the steps and the evaluations in words."""
        return f"{len(self.variants())} x ({self.steps} optimizer steps and an evaluation of the forget rows)"

    def check_benchmark(self, benchmark: BenchmarkConfig) -> None:
        """Raise UserError for holdout rows, if the benchmark has none."""
        if "holdout" in self.rows and not benchmark.has_holdout:
            raise UserError(
                f"audits.relearning.rows: holdout: {benchmark.name} has no such rows: choose from {OTHER_ROWS}"
            )

    def check_data(self, data: AuditedData, source: str, forget_rows: int) -> None:
        """Raise UserError for a single forget row, and for holdout rows that are not there."""
        if forget_rows < 2:
            raise UserError(
                "audits.relearning: one forget row is evaluated, and its audit learns one and asks for another"
            )
        if "holdout" in self.rows and not data.has_holdout:
            raise UserError(f"audits.relearning.rows: holdout: {source} has no holdout rows: choose from {OTHER_ROWS}")


class Quantisation(Audit):
    """Weights of linear layers and experts rounded to so many bits: symmetric, per output channel, to the nearest; or
    as servers do it. The head and the embedding stay; an adapter is merged first. Small changes of weights can be lost
    in the rounding: Zhang et al. 2024, arXiv 2410.16454."""

    name: ClassVar[str] = "quantisation"
    null_in_digests: ClassVar[bool] = True
    meanings: ClassVar[Mapping[str, str]] = {
        **{f"quant{bits}": f"with weights rounded to {bits} bits" for bits in range(8, 1, -1)},
        **SERVER_FORMATS,
    }

    bits: tuple[Bits, ...] = Field(
        (8, 4),
        description="2 to 8: symmetric, of each output row; nf4, int8: as bitsandbytes does; nf4_adapter: the base "
        "alone in NF4. Each is tried alone",
    )

    def variants(self) -> tuple[str, ...]:
        """Return a variant for each of `bits`."""
        return tuple(bits if isinstance(bits, str) else f"quant{bits}" for bits in self.bits)

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return the leaks and what only a whole evaluation gives."""
        return audit_metrics((*FULL, *benchmark.leaks), benchmark)

    def cost(self) -> str:
        """Return the number of evaluations in words."""
        return f"{len(self.variants())} x a whole evaluation"


class Prompts(Audit):
    """The forget questions, asked in other ways.

    `paraphrase`: in other words; `prefix`: after the one of `prefixes` that brings out most; `first_words`: with the
    first `words` words of the answer given, of which the rest counts.
    """

    name: ClassVar[str] = "prompts"
    null_in_digests: ClassVar[bool] = True
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
        return audit_metrics(names, benchmark)

    def check_data(self, data: AuditedData, source: str, forget_rows: int) -> None:
        """Raise UserError for a forget row without a paraphrase, if paraphrases are asked."""
        without = (name for name, row in data.questions if not row.paraphrased_question)
        lacking = next(without, None) if "paraphrase" in self.kinds else None
        if lacking is not None:
            raise UserError(
                f"audits.prompts.kinds: paraphrase: {lacking} in {source} has no paraphrased_question: choose from"
                " first_words, prefix"
            )


AnyAudits = Annotated[Audits, AsRegistered()]


def variant_meanings() -> dict[str, str]:
    """Return every variant of every audit with its meaning, in the order of reports."""
    return {variant: line for audit in Audit.registered.values() for variant, line in audit.meanings.items()}


def audit_of(variant: str) -> str:
    """Return the name of the audit that has this variant; the variant's own for one that no audit has any more."""
    known = Audit.registered.values()
    return next((audit.name for audit in known if variant in audit.meanings), variant)


def variants(audits: Audits) -> Iterator[str]:
    """Yield the variants that the audits try, in the order of reports."""
    tried = {variant for audit in audits.asked().values() for variant in audit.variants()}
    return (variant for variant in variant_meanings() if variant in tried)


def metric_name(variant: str, metric: str) -> str:
    """Return the name of an audit's metric in MLflow, in a registered model's tags and in trials.csv."""
    return f"audit_{variant}_{metric}"
