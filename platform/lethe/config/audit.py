"""The contract of an audit's configuration: `lethe.config.audits` has all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

from pydantic import model_validator
from pydantic.fields import FieldInfo

from lethe.config.base import Frozen
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.metrics import TOFU_METRICS, Metric

QUESTION_LEAKS = ("forget_probability", "forget_rouge", "forget_extraction_strength")  # of answers to questions


class AuditedRow(Protocol):
    """The part of `lethe.data.template.Row` that an audit may require something of."""

    @property
    def question(self) -> str:
        """The question's text."""

    @property
    def paraphrased_question(self) -> str | None:
        """The same in other words, None where there is none."""

    @property
    def perturbed_answers(self) -> tuple[str, ...]:
        """Wrong answers; may be empty."""


def audit_metrics(names: Iterable[str], benchmark: BenchmarkConfig) -> dict[str, Metric]:
    """Return the metrics that an audit gives under these names: the benchmark's own, or TOFU's where its runs have
    none."""
    known = {**TOFU_METRICS, **benchmark.metrics}
    return {name: known[name] for name in names}


class AuditedData(Protocol):
    """The part of `lethe.benchmarks.base.Benchmark` that an audit may require something of."""

    @property
    def has_holdout(self) -> bool:
        """True if there are rows that no model was trained on."""

    @property
    def questions(self) -> Sequence[tuple[str, AuditedRow]]:
        """The forget rows that evaluations ask for, each with a name for messages; empty without questions."""


class Audits(Frozen):
    """The audits of a study by name, None for one that is not asked for. Every subclass of `Audit` is a field."""

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without those that are not asked for, so that a new kind of audit changes no digest."""
        asked = super().canonical_fields(dumped)
        return {
            key: value for key, value in asked.items() if value is not None or Audit.registered[key].null_in_digests
        }

    def asked(self) -> dict[str, Audit]:
        """Return the audits that are asked for, by name."""
        audits = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: audit for name, audit in audits.items() if audit is not None}


class Audit(Frozen):
    """The kind of all audits. Each is done to a finished model in one or several variants.

    `registered`: all audits by name. `name`: the key in `Audits`. `meanings`: every variant that it has, with a line
    for reports, in the reports' order. `needs_questions`: forget rows are questions with answers. `null_in_digests`: it
    is older than the rule that audits which are not asked for are left out, and results on disk have it in their names.
    """

    registered: ClassVar[dict[str, type[Audit]]] = {}
    name: ClassVar[str]
    meanings: ClassVar[Mapping[str, str]]
    needs_questions: ClassVar[bool] = False
    null_in_digests: ClassVar[bool] = False

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
        return audit_metrics(benchmark.leaks, benchmark)

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
