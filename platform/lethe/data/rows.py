"""The rows of a question-answer unlearning benchmark. Pure values: no torch, no files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One question with its true answer, and the variants that some splits carry."""

    question: str
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_question: str | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All splits of one benchmark. `forget` and `retain` are trained on; `*_eval` carry the variants.

    `holdout` rows were never trained on by any model; it and `refusals` may be empty.
    """

    name: str
    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    forget_eval: tuple[Row, ...]
    retain_eval: tuple[Row, ...]
    real_authors: tuple[Row, ...]
    world_facts: tuple[Row, ...]
    holdout: tuple[Row, ...]
    refusals: tuple[str, ...]
    digest: str
