"""Audits: is it forgotten, or only hidden? What is done to a finished model, and what each of them measures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from lethe.config.adapter import FullParameters, Lora
from lethe.config.base import Frozen
from pydantic import Field, model_validator

Source = Literal["forget", "retain", "holdout"]
AuditKind = Literal["paraphrase", "prefix", "first_words"]
Bits = Annotated[int, Field(ge=2, le=8)]

# In front of a question, each alone; they say nothing about what follows.
PREFIXES = (
    "Here is a question for you:",
    "Please answer as well as you can.",
    "I would like to know the following.",
    "Question 1:",
)

FULL = ("forget", "utility")  # known only where everything is evaluated again


class Audit(Frozen):
    """One way of looking behind a finished model's answers."""

    @model_validator(mode="after")
    def _some_and_each_once(self) -> Self:
        for name, given in vars(self).items():
            if given == ():
                raise ValueError(f"{name}: none is given: leave the audit out instead")
            if isinstance(given, tuple) and len(set(given)) < len(given):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, given))}")
        return self


class Relearning(Audit):
    """A few optimizer steps (AdamW, the likelihood of the answers), then the rest of the forget rows is asked for.

    What was never known cannot come back from rows that do not say it: compare with the oracle, which learns the same
    rows. Benign relearning: Hu et al. 2024, arXiv 2406.13356.
    """

    rows: tuple[Source, ...] = Field(
        ("forget", "retain"), description="learned in turn, each by the finished model: unrelated rows too"
    )
    share: float = Field(0.2, gt=0, le=0.5, description="of the forget rows; as many of the others")
    steps: int = Field(10, ge=1)
    batch_size: int = Field(4, ge=1, description="rows in a step")
    learning_rate: float = Field(3e-4, gt=0)
    adapter: Annotated[FullParameters | Lora, Field(discriminator="name")] = FullParameters()


class Quantisation(Audit):
    """Weights of linear layers rounded to so many bits: symmetric, per output channel, to the nearest; the head and the
    embedding stay. Small changes of weights can be lost in the rounding: Zhang et al. 2024, arXiv 2410.16454."""

    bits: tuple[Bits, ...] = (8, 4)


class Prompts(Audit):
    """The forget questions, asked in other ways.

    `paraphrase`: in other words; `prefix`: after the one of `prefixes` that brings out most; `first_words`: with the
    first `words` words of the answer given, of which the rest counts.
    """

    kinds: tuple[AuditKind, ...] = ("paraphrase", "prefix", "first_words")
    prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = PREFIXES
    words: int = Field(3, ge=1)


class Audits(Frozen):
    """By name; one that is not given is not done."""

    relearning: Relearning | None = None
    quantisation: Quantisation | None = None
    prompts: Prompts | None = None

    def asked(self) -> dict[str, Audit]:
        """Those that are given, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: audit for name, audit in found.items() if audit is not None}


VARIANTS = {
    "relearn": "after a few steps on a part of the forget rows; only the others count",
    "relearn_retain": "after a few steps on retain rows",
    "relearn_holdout": "after a few steps on rows that no model was trained on",
    **{f"quant{bits}": f"with weights rounded to {bits} bits" for bits in range(8, 1, -1)},
    "paraphrase": "asked in other words",
    "prefix": "asked after a neutral sentence, the one that brings out most",
    "first_words": "with the first words of the answer given; only the rest counts",
}


def relearned(source: Source) -> str:
    """The variant of `relearning` on these rows."""
    return "relearn" if source == "forget" else f"relearn_{source}"


def metric_name(variant: str, metric: str) -> str:
    """How a number of an audit is called in MLflow, in a registered model's tags and in trials.csv."""
    return f"audit_{variant}_{metric}"


def measured(variant: str, leaks: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the metrics that an audit's `variant` measures before and after; `leaks` are the benchmark's."""
    if variant.startswith("quant"):
        return (*FULL, *leaks)
    return ("forget_rouge",) if variant == "first_words" else leaks


def variants(audits: Audits) -> Iterator[str]:
    """What the audits try, in the order of `VARIANTS`."""
    tried = {
        *(relearned(source) for source in (audits.relearning.rows if audits.relearning else ())),
        *(f"quant{bits}" for bits in (audits.quantisation.bits if audits.quantisation else ())),
        *(audits.prompts.kinds if audits.prompts else ()),
    }
    return (variant for variant in VARIANTS if variant in tried)
