"""The columns of a file of rows, where they are not called as usual."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lethe.config.base import Frozen

Kind = Literal["questions", "completions", "chats", "documents"]
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "chats": ("messages",),
    "questions": ("question", "answer"),
    "completions": ("prompt", "completion"),
    "documents": ("text",),
}


class Columns(Frozen):
    """Names of the columns of a file. A column that is not named is looked for under its usual names. Naming a column
    of one kind of rows (question and answer, prompt and completion, messages, or text) chooses that kind."""

    question: str | None = Field(None, min_length=1, description="usually question or instruction")
    answer: str | None = Field(None, min_length=1, description="usually answer, output or response")
    prompt: str | None = Field(None, min_length=1, description="plain text that a completion goes on from")
    completion: str | None = Field(None, min_length=1, description="what is learnt behind the prompt")
    messages: str | None = Field(None, min_length=1, description="chats: lists of role and content")
    text: str | None = Field(None, min_length=1, description="documents; usually text, document or content")
    paraphrase: str | None = Field(None, min_length=1, description="the answer in other words")
    paraphrased_question: str | None = Field(None, min_length=1, description="the question in other words")
    wrong_answers: str | None = Field(None, min_length=1, description="lists of wrong answers")

    @property
    def kind(self) -> Kind | None:
        """The kind of rows that the named columns are of; None where none of them says it."""
        return next((kind for kind, fields in REQUIRED.items() if any(getattr(self, f) for f in fields)), None)

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return the columns that are named."""
        return {key: value for key, value in super().canonical_fields(dumped).items() if value is not None}

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        named = {kind: [f for f in fields if getattr(self, f)] for kind, fields in REQUIRED.items()}
        chosen = {kind: fields for kind, fields in named.items() if fields}
        if len(chosen) > 1:
            both = ", ".join(field for fields in chosen.values() for field in fields)
            raise ValueError(f"names columns of {' and '.join(chosen)} ({both}): rows are of one kind")
        return self
