"""Which benchmark is studied: its files, and the part of them that is to be forgotten."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lethe.config.base import Frozen

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
