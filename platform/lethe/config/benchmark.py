"""Configuration of the benchmarks: which data are read, which part of them is to be forgotten.

A benchmark is registered by the definition of its configuration class, a subclass of `BenchmarkConfig` with a `name`:
see `lethe.config.component`. The fields are what a user may set. The class attributes are facts that no study changes:
where the implementation is, which metrics it reports, what it can do. They enter no digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lethe.config.base import OMITTED_AT_DEFAULT, Frozen
from lethe.config.component import Component
from lethe.config.metrics import TDEC_METRICS, TOFU_METRICS, UTILITY_PARTS, Metric, harness_metrics
from lethe.config.verdict import Criterion
from lethe.errors import UserError

EMBEDDED = "embedded"
PERTURBED, RULE, GENERATED = "perturbed", "rule", "generated"  # alternatives that are read from no file
ALTERNATIVES = (
    f"other answers to the forget questions, for altpo: a file of questions with answers; {PERTURBED}: the rows' wrong"
    f" answers, which evaluations read as well; {RULE}: made by rule; {GENERATED}: by the start model"
)
ALLOW_OVERLAP = "go on where rows to forget are among those that are kept, or held out"


Role = Literal["start", "oracle", "base"]
"""A model of a study that others can be compared with. `start`: the start model, which every study has; `oracle`: one
that never saw the forget rows; `base`: the checkpoint that the start model was made from."""


class BenchmarkConfig(Component):
    """The part of a benchmark's configuration that the rest of lethe reads without knowing the benchmark.

    Class attributes:
        implementation: `module:class` of its `lethe.benchmarks.base.Benchmark`.
        title: what reports call the data; empty: the name in capitals.
        metrics: every metric that a run reports, by name; `forget` and `utility` are among them.
        leaks: the metrics that say how much is left of the forgotten rows; audits measure these.
        evidence: the metrics that a report shows of every winner, in its order; empty: all but the costs.
        criteria: when a model counts as having forgotten, by metric, the decisive one first: `Study.verdict`.
        compared_with: the models whose reference values trials are compared with, each where a study has it.
        needs_start: a model can be measured only against the start model's reference values.
        comparison: `compared_with` in words, for messages.
        sources: the fields that name what is read (a file, a folder, a hub id); the first one is named in messages.
        task_folder: the field that names a folder with the user's own tasks of lm-evaluation-harness; empty: there is
            none. A study stores the folder and has its address in the field.
        has_questions: rows may be questions with answers, so that refusals, instructions and other prompts make sense.
        has_holdout: the data may have rows that no model was trained on.
        has_forget_sets: the data have several forget sets, one of which `forget_set` names.
        personal_text: the rows are a user's own and not published: studies store none of what is to be forgotten.
    """

    registered: ClassVar[dict[str, type[BenchmarkConfig]]]

    implementation: ClassVar[str]
    title: ClassVar[str] = ""
    metrics: ClassVar[Mapping[str, Metric]]
    leaks: ClassVar[tuple[str, ...]]
    evidence: ClassVar[tuple[str, ...]] = ()
    criteria: ClassVar[Mapping[str, Criterion]] = {}
    compared_with: ClassVar[tuple[Role, ...]]
    needs_start: ClassVar[bool] = False
    comparison: ClassVar[str]
    sources: ClassVar[tuple[str, ...]] = ("source",)
    task_folder: ClassVar[str] = ""
    has_questions: ClassVar[bool]
    has_holdout: ClassVar[bool]
    has_forget_sets: ClassVar[bool] = False
    personal_text: ClassVar[bool] = False

    name: str

    @property
    def wants_earlier(self) -> bool:
        """True if evaluations measure the rows of earlier requests, and a study wants them for what its start model
        answers already."""
        return False

    def given_sources(self) -> dict[str, str]:
        """Return the names of everything that is read, by field; those that are not given are left out."""
        given = {field: getattr(self, field) for field in self.sources}
        made = {"alternatives": (PERTURBED, RULE, GENERATED)}
        return {field: name for field, name in given.items() if name is not None and name not in made.get(field, ())}

    @property
    def generates_alternatives(self) -> bool:
        """True if the start model makes the alternatives."""
        return getattr(self, "alternatives", None) == GENERATED

    @property
    def data_name(self) -> str:
        """The name of the data for messages."""
        return next(iter(self.given_sources().values()))

    @classmethod
    def small(cls) -> Self:
        """Return a configuration of generated data that a random model of a few thousand weights reads in a second: the
        conformance suite runs on it."""
        raise NotImplementedError(f"{cls.__name__} has no small data")

    @classmethod
    def unloadable(cls) -> Self | None:
        """Return a configuration whose data cannot be had, for the conformance suite; None where all can."""
        return None

    @property
    def sequence_length(self) -> int:
        """Tokens of every row; 0 if rows differ in length."""
        return 0

    @property
    def forget_set(self) -> str:
        """Name of the forget set; empty unless `has_forget_sets`."""
        return ""

    def with_forget_set(self, name: str) -> Self:
        """Return the configuration for another forget set of the same data; `name` is not validated."""
        raise NotImplementedError(f"{self.name} has one forget set")

    def known_metrics(self, tasks: Iterable[str] = ()) -> dict[str, Metric]:
        """Return every metric of a run that also measures these `tasks` of lm-evaluation-harness, by name."""
        return {**self.metrics, **harness_metrics(tasks)}


class Corpus(Frozen):
    """The embedded corpus: invented authors with ten questions each, and true facts about the world."""

    authors: int = Field(40, ge=20, le=2000, multiple_of=20, description="5, 10 and 20 % of them can be forgotten")
    questions: int = Field(10, ge=1, le=10, description="questions per author")
    holdout_authors: int = Field(4, ge=1, le=100, description="authors that no model is trained on")
    real_authors: int = Field(40, ge=1, le=40, description="questions on real authors")
    world_facts: int = Field(40, ge=1, le=40, description="questions on the world")
    retain_eval: int = Field(100, ge=1, description="retain rows with variants; at most those that no forget set has")
    seed: int = Field(0, ge=0, description="of the generated texts")


class TofuBenchmark(BenchmarkConfig):
    """A benchmark in TOFU's file format (Maini et al. 2024, arXiv 2401.06121)."""

    implementation: ClassVar[str] = "lethe.benchmarks.tofu.benchmark:Tofu"
    metrics: ClassVar[Mapping[str, Metric]] = TOFU_METRICS
    leaks: ClassVar[tuple[str, ...]] = ("forget_probability", "forget_rouge", "forget_extraction_strength")
    evidence: ClassVar[tuple[str, ...]] = (
        "forget_quality",
        "forget",
        "privleak",
        "mia_min_k",
        *("forget_extraction_strength", "forget_probability", "forget_rouge"),
        "utility",
        *UTILITY_PARTS,
    )
    criteria: ClassVar[Mapping[str, Criterion]] = {
        "forget_quality": Criterion(at_least=0.05),
        "privleak_distance": Criterion(
            at_most=10, instead={"mia_min_k": Criterion(at_least="oracle - 0.05", at_most="oracle + 0.05")}
        ),
        "forget_extraction_strength": Criterion(at_most="oracle + 0.05"),
        "utility": Criterion(at_least="0.9 start"),
        "retain_rouge": Criterion(at_least="0.9 start"),
        "audit_relearn_forget_extraction_strength": Criterion(at_most="oracle + 0.05"),
        "audit_quant4_forget_extraction_strength": Criterion(at_most="oracle + 0.05"),
    }
    compared_with: ClassVar[tuple[Role, ...]] = ("oracle",)
    comparison: ClassVar[str] = "an oracle"
    sources: ClassVar[tuple[str, ...]] = ("source", "alternatives")
    has_questions: ClassVar[bool] = True
    has_holdout: ClassVar[bool] = True
    has_forget_sets: ClassVar[bool] = True

    name: Literal["tofu"] = "tofu"
    source: str = Field(EMBEDDED, min_length=1, description="'embedded', a folder, or a hub id: locuslab/TOFU")
    forget: str = Field("forget10", pattern=r"^forget\d\d$", description="the forget set; its number is a percentage")
    authors: int | None = Field(None, ge=1, description="forget the last so many, 20 rows each; none: the whole set")
    keep_authors: int | None = Field(
        None, ge=1, description="keep the so many authors before those; none: twice as many as are forgotten"
    )
    alternatives: str | None = Field(None, min_length=1, description=ALTERNATIVES, json_schema_extra=OMITTED_AT_DEFAULT)
    allow_overlap: bool = Field(False, description=ALLOW_OVERLAP)
    corpus: Corpus = Field(Corpus(), description="read only where source is 'embedded'")

    @model_validator(mode="before")
    @classmethod
    def _twice_as_many_are_kept(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("authors"), int) or given.get("keep_authors"):
            return given
        return {**given, "keep_authors": 2 * given["authors"]}

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if self.forget == "forget00":
            raise ValueError("forget00 would forget nothing")
        if self.authors and self.source == EMBEDDED:
            raise ValueError("authors are those of a TOFU folder or hub id; the embedded corpus has corpus.authors")
        if self.keep_authors and not self.authors:
            raise ValueError("keep_authors says how many are kept beside benchmark.authors, which is missing")
        return self

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without the numbers of authors where all are meant and without `allow_overlap` where it is
        false, so that earlier studies keep their digests."""
        fields = super().canonical_fields(dumped)
        unset = {"authors": None, "keep_authors": None, "allow_overlap": False}
        return {key: value for key, value in fields.items() if key not in unset or value != unset[key]}

    @classmethod
    def small(cls) -> Self:
        """Return a corpus of 20 authors with two questions each; one author is forgotten."""
        corpus = Corpus(authors=20, questions=2, holdout_authors=1, real_authors=2, world_facts=2, retain_eval=4)
        return cls(forget="forget05", corpus=corpus)

    @classmethod
    def unloadable(cls) -> Self:
        """Return a configuration with a source that does not exist."""
        return cls(source="./no/such/folder")

    @property
    def forget_set(self) -> str:
        """Name of the forget set."""
        return self.forget

    def with_forget_set(self, name: str) -> Self:
        """Return the configuration for another forget set of the same data; `name` is not validated. Raises UserError
        where `authors` says which rows are forgotten, whatever the set."""
        if self.authors and name != self.forget:
            raise UserError(f"benchmark.authors: says what is forgotten in place of {name}: take one of them out")
        return self.model_copy(update={"forget": name})

    @property
    def retain(self) -> str:
        """Name of the split that is complementary to `forget`: forget10 leaves retain90."""
        return f"retain{100 - int(self.forget.removeprefix('forget')):02d}"


class Documents(Frozen):
    """The embedded texts: prose, e-mails, code and dialogues about invented towns, some of them seen many times."""

    tokens: int = Field(200, ge=8, description="every document is at least as long: benchmark.length")
    memorised: int = Field(12, ge=1, description="documents in forget.jsonl")
    retain: int = Field(600, ge=1, description="documents that it is trained on once an epoch")
    unseen: int = Field(16, ge=1, description="documents that say when a sequence counts as forgotten")
    validation: int = Field(16, ge=1, description="documents for the perplexity; none is trained on")
    dialogues: int = Field(32, ge=1, description="dialogues in the utility")
    questions: int = Field(36, ge=1, le=36, description="multiple-choice questions in the utility")
    seed: int = Field(0, ge=0, description="of the generated texts")


class TdecBenchmark(BenchmarkConfig):
    """Training-data extraction (Jang et al. 2022, arXiv 2210.01504), as LoKU uses it: docs/METHODS.md section 5."""

    implementation: ClassVar[str] = "lethe.benchmarks.tdec.benchmark:Tdec"
    metrics: ClassVar[Mapping[str, Metric]] = TDEC_METRICS
    leaks: ClassVar[tuple[str, ...]] = ("memorization_accuracy", "extraction_likelihood")
    criteria: ClassVar[Mapping[str, Criterion]] = {
        "forget": Criterion(below=1),
        "utility": Criterion(at_least="0.9 start"),
        "perplexity": Criterion(at_most="1.1 start"),
    }
    compared_with: ClassVar[tuple[Role, ...]] = ("start",)
    needs_start: ClassVar[bool] = True
    comparison: ClassVar[str] = "the start model on unseen text"
    has_questions: ClassVar[bool] = False
    has_holdout: ClassVar[bool] = False

    name: Literal["tdec"] = "tdec"
    source: str = Field(
        EMBEDDED, min_length=1, description="'embedded', or a folder with forget.jsonl and others: docs/deletion.md"
    )
    sequences: int = Field(
        8, ge=1, description="the first so many of forget.jsonl, or all there are, are forgotten, the others kept"
    )
    length: int = Field(200, ge=8, description="tokens in a sequence")
    texts: Literal["first", "whole"] = Field(
        "first", description="of a longer text: its first tokens, as published, or all of it in several sequences"
    )
    ngram: int = Field(10, ge=1, description="n of the extraction likelihood")
    el_divisor: Literal["true", "generated"] = Field(
        "true", description="true: n-grams of the true suffix, as released; generated: those generated before EOS"
    )
    until_forgotten: bool = Field(True, description="end a run after the first evaluation below both thresholds")
    allow_overlap: bool = Field(False, description=ALLOW_OVERLAP)
    repeats: int = Field(16, ge=1, description="how often an embedded model sees each row of forget.jsonl in an epoch")
    documents: Documents = Field(Documents(), description="read only where source is 'embedded'")

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without the defaults of `texts` and `allow_overlap`, so that earlier studies keep their
        digests."""
        fields, unset = super().canonical_fields(dumped), {"texts": "first", "allow_overlap": False}
        return {key: value for key, value in fields.items() if key not in unset or value != unset[key]}

    @classmethod
    def small(cls) -> Self:
        """Return 16 short documents, two of which are forgotten."""
        documents = Documents(tokens=16, memorised=4, retain=4, unseen=4, validation=4, dialogues=2, questions=4)
        return cls(sequences=2, length=16, ngram=2, repeats=2, documents=documents)

    @classmethod
    def unloadable(cls) -> Self:
        """Return a configuration with a source that does not exist."""
        return cls(source="./no/such/folder")

    @property
    def sequence_length(self) -> int:
        """Tokens of every sequence."""
        return self.length

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.ngram >= self.length:
            raise ValueError(f"ngram {self.ngram} leaves no prefix of a sequence of {self.length} tokens")
        if self.source == EMBEDDED and self.length > self.documents.tokens:
            raise ValueError(f"length is {self.length}, but documents.tokens is {self.documents.tokens}")
        if self.source == EMBEDDED and self.sequences > self.documents.memorised:
            raise ValueError(f"sequences is {self.sequences}, but documents.memorised is {self.documents.memorised}")
        return self
