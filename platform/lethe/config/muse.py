"""Configuration of MUSE: documents to forget, with everything that says whether they were forgotten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lethe.config.base import Frozen
from lethe.config.benchmark import ALLOW_OVERLAP, EMBEDDED, BenchmarkConfig, Role
from lethe.config.metrics import MUSE_METRICS, Metric
from lethe.config.verdict import Criterion

FORGET_SETS = re.compile(r"raw|(?P<kind>scal|sust)_(?P<number>[1-4])")


class News(Frozen):
    """The embedded texts: news articles, a book and pages of questions about people who do not exist."""

    articles: int = Field(4, ge=1, le=50, description="in each forget and retain set; three times as many are held out")
    chapters: int = Field(4, ge=1, le=8, description="of the one book of a set")
    seed: int = Field(0, ge=0, description="of the generated texts")


class MuseBenchmark(BenchmarkConfig):
    """MUSE, documents to forget (Shi et al. 2024, arXiv 2407.06460): docs/METHODS.md section 5b."""

    implementation: ClassVar[str] = "lethe.benchmarks.muse.benchmark:Muse"
    metrics: ClassVar[Mapping[str, Metric]] = MUSE_METRICS
    leaks: ClassVar[tuple[str, ...]] = ("forget_verbmem",)
    evidence: ClassVar[tuple[str, ...]] = (
        *("forget_verbmem", "forget_knowmem", "privleak", "mia_min_k", "forget"),
        *("earlier_verbmem", "earlier_knowmem", "utility"),
    )
    criteria: ClassVar[Mapping[str, Criterion]] = {
        "forget_verbmem": Criterion(at_most="oracle + 0.05"),
        "forget_knowmem": Criterion(at_most="oracle + 0.05"),
        "privleak_distance": Criterion(at_most=5),  # as published
        "earlier_verbmem": Criterion(at_most="oracle + 0.05"),
        "earlier_knowmem": Criterion(at_most="oracle + 0.05"),
        "utility": Criterion(at_least="0.9 start"),
        "audit_relearn_forget_verbmem": Criterion(at_most="oracle + 0.05"),
        "audit_quant4_forget_verbmem": Criterion(at_most="oracle + 0.05"),
    }
    compared_with: ClassVar[tuple[Role, ...]] = ("oracle",)
    comparison: ClassVar[str] = "an oracle"
    has_questions: ClassVar[bool] = False
    has_holdout: ClassVar[bool] = True
    has_forget_sets: ClassVar[bool] = True

    name: Literal["muse"] = "muse"
    source: str = Field(
        EMBEDDED, min_length=1, description="'embedded', a folder in MUSE's layout, or a hub id: muse-bench/MUSE-News"
    )
    forget: str = Field(
        "raw", description="the forget set: raw, scal_1 to scal_4 (each holds the one before) or sust_1 to sust_4"
    )
    window: int = Field(2048, ge=16, description="tokens that are trained on and scored at once of a longer document")
    verbmem_tokens: int = Field(128, ge=1, description="tokens that go on from a beginning, as published")
    knowmem_tokens: int = Field(32, ge=1, description="tokens of an answer, as published")
    examples: int = Field(10, ge=0, description="answered questions in front of each: the first so many of *_qa_icl")
    answer_space: bool | None = Field(
        None, description="questions end with a space behind 'Answer:', as published; none: unless source is embedded"
    )
    allow_overlap: bool = Field(False, description=ALLOW_OVERLAP)
    news: News = Field(News(), description="read only where source is 'embedded'")

    @model_validator(mode="after")
    def _known_set(self) -> Self:
        if not FORGET_SETS.fullmatch(self.forget):
            raise ValueError(f"forget: {self.forget!r} is no forget set: choose from raw, scal_1 to 4, sust_1 to 4")
        return self

    @classmethod
    def small(cls) -> Self:
        """Return an article and a chapter a set, in windows of 48 tokens."""
        return cls(window=48, examples=1, news=News(articles=1, chapters=1))

    @classmethod
    def unloadable(cls) -> Self:
        """Return a configuration with a source that does not exist."""
        return cls(source="./no/such/folder")

    @property
    def forget_set(self) -> str:
        """Name of the forget set."""
        return self.forget

    def with_forget_set(self, name: str) -> Self:
        """Return the configuration for another forget set of the same data; `name` is not validated."""
        return self.model_copy(update={"forget": name})

    @property
    def forget_file(self) -> tuple[str, str]:
        """Subset and split of the documents to forget."""
        kind, _, number = self.forget.partition("_")
        return (kind, f"forget_{number}") if number else ("raw", "forget")

    @property
    def earlier_files(self) -> tuple[tuple[str, str], ...]:
        """Subset and split of each earlier request of a sequence: those before sust_3 are sust_1 and sust_2."""
        kind, _, number = self.forget.partition("_")
        return tuple((kind, f"forget_{n}") for n in range(1, int(number))) if kind == "sust" else ()

    @property
    def ends_with_space(self) -> bool:
        """True if a question's prompt ends with a space."""
        return self.source != EMBEDDED if self.answer_space is None else self.answer_space
