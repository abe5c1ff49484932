"""Configuration of the benchmark of one's own rows: what is to be forgotten, what is kept, and what else there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lethe.config.benchmark import ALLOW_OVERLAP, ALTERNATIVES, BenchmarkConfig, Role
from lethe.config.columns import Columns
from lethe.config.metrics import COSTS, Metric
from lethe.config.verdict import Criterion

SMALL = Path(__file__).parents[1] / "benchmarks" / "own" / "small"
FILE = "a file (jsonl, json, csv, tsv, parquet, txt), a folder of texts, or a hub id"

_SIGNALS: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("mean token loss", ()),
    "zlib": ("loss over the text's compressed length", ()),
    "min_k": ("Min-K, the least likely 40 % of a row's tokens", ()),
    "min_k_plus_plus": ("Min-K++, the same, standardised by what the model itself would draw", ()),
    "reference": ("loss less the oracle's, without one the base model's", ("reference",)),
}
_LEFT = {
    "probability": "length-normalised probability of {}",
    "rouge": "ROUGE-L recall of greedy answers to {}; of documents, of what follows the middle of a window",
    "extraction_strength": "1 - k/n on {}: the shortest prefix k that draws out the rest",
}

OWN_METRICS: dict[str, Metric] = {
    "forget": Metric(
        "minimize",
        "KS distance of forget from holdout rows; without a holdout oracle_distance, without both forget_found",
    ),
    "utility": Metric("maximize", "harmonic mean of retain_probability, retain_rouge, start perplexity / now, tasks"),
    "forget_quality": Metric("maximize", "p of the exact KS test of forget against holdout rows", needs=("holdout",)),
    "oracle_distance": Metric("minimize", "KS distance of forget rows' losses from the oracle's", needs=("oracle",)),
    "oracle_quality": Metric("maximize", "p of the exact KS test against the oracle", needs=("oracle",)),
    "forget_found": Metric("minimize", "what the measure that finds most of a forget row finds, on average"),
    "forget_verbatim": Metric("minimize", "share of forget rows that greedy answers have word for word, in order"),
    **{f"forget_{name}": Metric("minimize", text.format("forget rows")) for name, text in _LEFT.items()},
    "extraction_difference": Metric(
        "minimize", "forget_extraction_strength less holdout_extraction_strength", needs=("holdout",)
    ),
    "forget_truth_ratio": Metric(
        "maximize", "min(R, 1/R) of the truth ratio R on forget rows with wrong answers", needs=("wrong_answers",)
    ),
    "mia_excess": Metric(
        "minimize",
        "how far an AUC of mia_loss, mia_min_k, mia_reference is from blind, at most, less 1.96 standard errors",
        needs=("holdout",),
    ),
    **{
        f"mia_{name}": Metric(
            "minimize", f"AUC of telling forget from holdout rows by {text}: .5 is blind", needs=("holdout", *needs)
        )
        for name, (text, needs) in _SIGNALS.items()
    },
    **{
        f"holdout_{name}": Metric("maximize", text.format("holdout rows"), needs=("holdout",))
        for name, text in _LEFT.items()
    },
    **{f"retain_{name}": Metric("maximize", _LEFT[name].format("retain rows")) for name in ("probability", "rouge")},
    "earlier_found": Metric(
        "minimize", "as forget_found, of the rows of earlier requests that the start model answers", needs=("earlier",)
    ),
    "general_perplexity": Metric("minimize", "exp of the mean token loss on general text", needs=("general",)),
    **COSTS,
}

KEPT = {"utility": Criterion(at_least="0.9 start"), "retain_rouge": Criterion(at_least="0.9 start")}
EARLIER = {"earlier_found": Criterion(at_most="start + 0.05")}
AUDITED = {
    f"audit_{variant}_forget_extraction_strength": Criterion(at_most="oracle + 0.05")
    for variant in ("relearn", "quant4")
}
AGAINST_HOLDOUT = {
    "forget_quality": Criterion(at_least=0.05),
    "mia_excess": Criterion(at_most=0.05),
    "extraction_difference": Criterion(at_most=0.05),
}
AGAINST_ORACLE = {
    "oracle_quality": Criterion(at_least=0.05),
    "forget_extraction_strength": Criterion(at_most="oracle + 0.05"),
}
# The one that needs no other rows and no other model. Assumption: one short answer in twenty is guessed.
ALONE = {"forget_verbatim": Criterion(at_most=0.05)}


class OwnBenchmark(BenchmarkConfig):
    """Rows of one's own: questions with answers, prompts with completions, chats, or documents of any length."""

    implementation: ClassVar[str] = "lethe.benchmarks.own.benchmark:Own"
    title: ClassVar[str] = "your own data"
    metrics: ClassVar[Mapping[str, Metric]] = OWN_METRICS
    leaks: ClassVar[tuple[str, ...]] = ("forget_probability", "forget_rouge", "forget_extraction_strength")
    evidence: ClassVar[tuple[str, ...]] = tuple(name for name, metric in OWN_METRICS.items() if not metric.cost)
    # What needs a holdout or an oracle is left out without one.
    criteria: ClassVar[Mapping[str, Criterion]] = AGAINST_HOLDOUT | AGAINST_ORACLE | ALONE | EARLIER | KEPT | AUDITED
    compared_with: ClassVar[tuple[Role, ...]] = ("start", "oracle", "base")
    comparison: ClassVar[str] = "holdout rows, an oracle, the start model and its base, whatever there is"
    sources: ClassVar[tuple[str, ...]] = ("forget", "retain", "holdout", "general", "earlier", "alternatives")
    has_questions: ClassVar[bool] = True
    has_holdout: ClassVar[bool] = True
    personal_text: ClassVar[bool] = True

    name: Literal["own"] = "own"
    forget: str = Field(min_length=1, description=f"the rows to forget: {FILE}")
    retain: str = Field(min_length=1, description="rows to keep, likewise")
    holdout: str | None = Field(
        None, min_length=1, description="rows like those to forget that the model was never trained on, likewise"
    )
    general: str | None = Field(None, min_length=1, description="plain text for the perplexity, likewise")
    earlier: str | None = Field(
        None, min_length=1, description="rows of the requests that the start model answers already, likewise"
    )
    ignore_earlier: bool = Field(False, description="do not ask whether rows of earlier requests stay forgotten")
    columns: Columns = Field(
        Columns(), description="of forget, holdout and earlier, and of retain where it has none of its own"
    )
    retain_columns: Columns | None = None
    made_answers: int = Field(
        0, ge=0, description="wrong answers of a forget row without any, at most, made by rule: for forget_truth_ratio"
    )
    alternatives: str | None = Field(None, min_length=1, description=ALTERNATIVES)
    window: int = Field(256, ge=8, description="tokens of a document that are read at once, at most")
    overlap: int = Field(32, ge=1, description="of these, tokens that were read before and are not counted again")
    allow_overlap: bool = Field(False, description=ALLOW_OVERLAP)

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without what is not given."""
        fields = super().canonical_fields(dumped)
        unset = {"made_answers": 0, "ignore_earlier": self.ignore_earlier}
        return {key: value for key, value in fields.items() if value is not None and unset.get(key, ...) != value}

    @property
    def wants_earlier(self) -> bool:
        """True unless the study ignores what the start model answers already."""
        return not self.ignore_earlier

    @model_validator(mode="after")
    def _overlap_is_less(self) -> Self:
        if self.overlap > self.window // 2:
            raise ValueError(f"overlap {self.overlap} is more than half of the window, {self.window} tokens")
        return self

    @classmethod
    def small(cls) -> Self:
        """Return questions about four invented persons, with all that can be given."""
        names = ("forget.jsonl", "retain.jsonl", "holdout.jsonl", "general.txt")
        forget, retain, holdout, general = (str(SMALL / name) for name in names)
        return cls(forget=forget, retain=retain, holdout=holdout, general=general)

    @classmethod
    def unloadable(cls) -> Self:
        """Return a configuration with a file that does not exist."""
        return cls(forget="./no/such/file.csv", retain="./no/such/file.csv")
