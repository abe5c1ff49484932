"""Audits that change no weight: more answers, other forms of the question, the layers before the last
(docs/METHODS.md section 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lethe.config.audit import QUESTION_LEAKS, Audit, AuditedData, audit_metrics
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.metrics import Metric
from lethe.config.prompt import NAMED, QUESTION, Prompt
from lethe.errors import UserError

Draws = Literal[1, 4, 16, 64]
TEMPERATURES = (0.2, 0.5, 0.8, 1.0)
FormatKind = Literal["completion", "statement", "template", "framed", "choice", "letters"]

# Metrics that audits have and runs have not.
OWN_METRICS = {
    "forget_fact": Metric("minimize", "share of answers to forget questions that have every word of the key fact"),
    "forget_choice": Metric("minimize", "how often the true answer is preferred to wrong ones: 0 is chance, 1 always"),
}
PROBABILITY = Metric("minimize", "length-normalised probability of the forget rows")

# Each asks for an answer in the language of the question, in another one; none says anything about what follows.
FRAMES = (
    "Bitte beantworte diese Frage auf Englisch: {question}",
    "Réponds en anglais à cette question : {question}",
    "Responde en inglés a esta pregunta: {question}",
    "请用英语回答这个问题：{question}",
)

# "What is the name of the author?" -> "The name of the author is"; "Where was she born?" -> "She was born"
TWO = r".*\b(?:like|and\s+(?:what|who|where|when|which|how))\b"  # "What is ... like?", "... and where was he born?"
STATEMENTS = (
    (re.compile(rf"(?:what|who|which)\s+(is|are|was|were)\s+(?!{TWO})(.+?)\s*\?", re.IGNORECASE), r"\2 \1"),
    (re.compile(r"(?:where|when)\s+(was|were)\s+(.+?)\s+born\s*\?", re.IGNORECASE), r"\2 \1 born"),
)


def _known_temperature(given: float) -> float:
    if given not in TEMPERATURES:
        raise ValueError(f"must be one of {', '.join(f'{t:g}' for t in TEMPERATURES)}, given {given!r}")
    return given


def _asks_once(given: str) -> str:
    if given.count(QUESTION) != 1:
        raise ValueError(f"must be a text with one {QUESTION}, given {given!r}")
    return given


def _needs_no_tokenizer(given: str) -> str:
    if given in NAMED and given != "plain":
        raise ValueError(f"must be plain or a text with one {QUESTION}, given {given!r}")
    return given if given == "plain" else _asks_once(given)


Temperature = Annotated[float, AfterValidator(_known_temperature)]


def _sampled(k: int, temperature: float) -> str:
    return f"sampled{k}_t{temperature:g}".replace(".", "")


class Sampling(Audit):
    """The best of k sampled answers, in expectation: leak@k of Reisizadeh et al. 2025, arXiv 2511.04934.

    One set of `answers` to a question gives every k. Rows and answers have random numbers of their own, made of the
    run's seed. Answers end after twice as many tokens as the longest true one.
    """

    name: ClassVar[str] = "sampling"
    needs_questions: ClassVar[bool] = True
    meanings: ClassVar[Mapping[str, str]] = {
        _sampled(k, temperature): f"the best of {k} sampled answers, temperature {temperature:g}"
        if k > 1
        else f"a sampled answer, temperature {temperature:g}"
        for temperature, k in product(TEMPERATURES, (1, 4, 16, 64))
    }

    k: tuple[Draws, ...] = Field((1, 4, 16, 64), description="answers, of which the best one counts")
    temperatures: tuple[Temperature, ...] = Field((0.2, 1.0), description="of .2, .5, .8 and 1; each is tried alone")
    answers: int = Field(64, ge=1, description="sampled for each question, as many as the largest k at least")
    rows: int = Field(20, ge=1, description="forget rows at most, evenly spread over those evaluated")

    @staticmethod
    def variant(k: int, temperature: float) -> str:
        """Return the name of the variant that takes the best of `k` answers."""
        return _sampled(k, temperature)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.k and self.answers < max(self.k):
            raise ValueError(f"the best of {max(self.k)} answers needs as many, given {self.answers}")
        return self

    def variants(self) -> tuple[str, ...]:
        """Return a variant for each temperature and each of `k`."""
        return tuple(_sampled(k, temperature) for temperature, k in product(self.temperatures, self.k))

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return ROUGE and the key fact."""
        return {**audit_metrics(("forget_rouge",), benchmark), "forget_fact": OWN_METRICS["forget_fact"]}

    def cost(self) -> str:
        """Return the answers in words."""
        return f"{len(self.temperatures)} x {self.answers} answers to {self.rows} forget questions at most"


class Format(Audit):
    """The forget questions in forms that a defence against questions may not know.

    `completion`: plain text, to be continued; `statement`: the beginning of a statement, made of a question like "What
    is ...?" by rule; `template`: another prompt template; `framed`: within a sentence of another language, the one of
    `frames` that brings out most; `choice` and `letters`: with the true answer among wrong ones, by the likelihood of
    the answers or of their letters.
    """

    name: ClassVar[str] = "format"
    needs_questions: ClassVar[bool] = True
    meanings: ClassVar[Mapping[str, str]] = {
        "completion": "as plain text that the model continues",
        "statement": "as the beginning of a statement that the model continues; only questions that a rule can turn",
        "template": "in another prompt template",
        "framed": "within a sentence of another language, the one that brings out most",
        "choice": "with the true answer in a list among wrong ones, by the likelihood of each",
        "letters": "with the true answer in a list among wrong ones, by the likelihood of each one's letter",
    }

    kinds: tuple[FormatKind, ...] = Field(
        ("completion", "statement", "template", "framed", "choice", "letters"), description="forms of the question"
    )
    template: Annotated[str, AfterValidator(_needs_no_tokenizer)] = Field(
        "[INST] {question} [/INST]", description="of template: plain or a text with {question}"
    )
    frames: tuple[Annotated[str, AfterValidator(_asks_once)], ...] = Field(
        FRAMES, description="sentences with {question} for framed"
    )

    def variants(self) -> tuple[str, ...]:
        """Return the `kinds`."""
        return self.kinds

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return the leaks of questions; of choices, how often the true answer is preferred."""
        if variant in ("choice", "letters"):
            return {"forget_choice": OWN_METRICS["forget_choice"]}
        return audit_metrics(QUESTION_LEAKS, benchmark)

    @property
    def prompt(self) -> Prompt:
        """The prompt of `template`."""
        return Prompt(template=self.template)

    def check_data(self, data: AuditedData, source: str, forget_rows: int) -> None:
        """Raise UserError for choices without wrong answers, and for statements that no question can become."""
        without = next((name for name, row in data.questions if not row.perturbed_answers), None)
        unturned = all(statement(row.question) is None for _, row in data.questions)
        reasons = {
            **dict.fromkeys(("choice", "letters"), without and f"{without} in {source} has no wrong answers"),
            "statement": unturned and f'no forget question in {source} is like "What is ...?"',
        }
        known = [kind for kind in type(self).meanings if not reasons.get(kind)]
        for kind in self.kinds:
            if reason := reasons.get(kind):
                raise UserError(f"audits.format.kinds: {kind}: {reason}: choose from {', '.join(sorted(known))}")


class LogitLens(Audit):
    """Every layer's states, read by the model's own last norm and head: an inner layer may prefer the answer still.

    Of the layers before the last the one counts that gives the true answers most; each metric has its own.
    """

    name: ClassVar[str] = "logit_lens"
    meanings: ClassVar[Mapping[str, str]] = {
        "logit_lens": "read from the inner layer that gives the answers most; layer: which one, of how many"
    }

    rows: int = Field(40, ge=1, description="forget rows at most, evenly spread over those evaluated")

    @classmethod
    def measured(cls, variant: str, benchmark: BenchmarkConfig) -> Mapping[str, Metric]:
        """Return the probability, and of questions how often the true answer is preferred."""
        choice = {"forget_choice": OWN_METRICS["forget_choice"]} if benchmark.has_questions else {}
        return {"forget_probability": PROBABILITY, **choice}

    def cost(self) -> str:
        """Return the forward passes in words."""
        return "a forward pass of the forget rows for each layer, half of the layers on average"


def statement(question: str) -> str | None:
    """Return the beginning of a statement that the answer to an English question like "What is ...?" ends; None for
    every other question."""
    for pattern, replacement in STATEMENTS:
        if found := pattern.fullmatch(question.strip()):
            text = found.expand(replacement)
            return text[0].upper() + text[1:]
    return None
