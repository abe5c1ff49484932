"""Which benchmark is studied: its files, and the part of them that is to be forgotten."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from lethe.config.base import Frozen
from pydantic import Field, model_validator

EMBEDDED = "embedded"


class Corpus(Frozen):
    """The embedded corpus: invented authors with ten questions each, and true facts about the world."""

    authors: int = Field(40, ge=20, le=2000, multiple_of=20, description="5, 10 and 20 % of them can be forgotten")
    questions: int = Field(10, ge=1, le=10, description="questions per author")
    holdout_authors: int = Field(4, ge=1, le=100, description="authors that no model is trained on")
    real_authors: int = Field(40, ge=1, le=40)
    world_facts: int = Field(40, ge=1, le=40)
    retain_eval: int = Field(100, ge=1, description="retain rows with variants; at most those that no forget set has")
    seed: int = Field(0, ge=0)


class TofuBenchmark(Frozen):
    """A benchmark in TOFU's file format (Maini et al. 2024, arXiv 2401.06121)."""

    name: Literal["tofu"] = "tofu"
    source: str = Field(EMBEDDED, min_length=1, description="'embedded', a folder, or a hub id: locuslab/TOFU")
    forget: str = Field("forget10", pattern=r"^forget\d\d$", description="the forget set; its number is a percentage")
    corpus: Corpus = Field(Corpus(), description="read only where source is 'embedded'")

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if self.forget == "forget00":
            raise ValueError("forget00 would forget nothing")
        return self

    @property
    def retain(self) -> str:
        """The split that keeps what `forget` does not: forget10 leaves retain90."""
        return f"retain{100 - int(self.forget.removeprefix('forget')):02d}"


class Documents(Frozen):
    """The embedded texts: prose, e-mails, code and dialogues about invented towns, some of them seen many times."""

    tokens: int = Field(200, ge=8, description="every document is at least as long: benchmark.length")
    memorised: int = Field(12, ge=1, description="documents in forget.jsonl")
    retain: int = Field(600, ge=1, description="documents that it is trained on once an epoch")
    unseen: int = Field(16, ge=1, description="documents that say when a sequence counts as forgotten")
    validation: int = Field(16, ge=1, description="documents for the perplexity; none is trained on")
    dialogues: int = Field(32, ge=1)
    questions: int = Field(36, ge=1, le=36)
    seed: int = Field(0, ge=0)


class TdecBenchmark(Frozen):
    """Training-data extraction (Jang et al. 2022, arXiv 2210.01504), as LoKU uses it: METHODS section 5."""

    name: Literal["tdec"] = "tdec"
    source: str = Field(
        EMBEDDED, min_length=1, description="'embedded', or a folder: see lethe.benchmarks.tdec.loading"
    )
    sequences: int = Field(8, ge=1, description="the first so many of forget.jsonl are forgotten, the others kept")
    length: int = Field(200, ge=8, description="tokens in a sequence")
    ngram: int = Field(10, ge=1, description="n of the extraction likelihood")
    el_divisor: Literal["true", "generated"] = Field(
        "true", description="true: n-grams of the true suffix, as released; generated: those generated before EOS"
    )
    until_forgotten: bool = Field(True, description="end a run after the first evaluation below both thresholds")
    repeats: int = Field(16, ge=1, description="how often an embedded model sees each row of forget.jsonl in an epoch")
    documents: Documents = Field(Documents(), description="read only where source is 'embedded'")

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.ngram >= self.length:
            raise ValueError(f"ngram {self.ngram} leaves no prefix of a sequence of {self.length} tokens")
        if self.source == EMBEDDED and self.length > self.documents.tokens:
            raise ValueError(f"length is {self.length}, but documents.tokens is {self.documents.tokens}")
        if self.source == EMBEDDED and self.sequences > self.documents.memorised:
            raise ValueError(f"sequences is {self.sequences}, but documents.memorised is {self.documents.memorised}")
        return self


AnyBenchmark = Annotated[TofuBenchmark | TdecBenchmark, Field(discriminator="name")]
