"""A row of text that models are trained on and asked for. Pure values: no torch, no files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its true answer, and the variants that some splits have; plain text is an answer to ''."""

    question: str
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_question: str | None = None
