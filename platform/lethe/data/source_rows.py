"""The rows of people's own data: questions, completions, chats and documents, each with a name for messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lethe.config.columns import Kind
from lethe.data.files import is_blank
from lethe.data.rendering import Message
from lethe.data.template import Row
from lethe.data.words import same_text
from lethe.errors import UserError

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
VARIANTS = ("paraphrase", "paraphrased_question", "wrong_answers")  # columns that rows with answers may have


@dataclass(frozen=True, slots=True)
class Question(Row):
    """A question with its true answer and their variants. `made`: `perturbed_answers` were made by rule."""

    made: bool = False
    name: str = field(default="", compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """Texts by which rows are equal, whatever their case, white space and Unicode form."""
        return same_text(self.question), same_text(self.answer)


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation: `question` are its turns before the last `answer` of the assistant. `unread`: so many turns came
    behind that answer. Otherwise as `Question`."""

    question: tuple[Message, ...]
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    made: bool = False
    unread: int = field(default=0, compare=False)
    name: str = field(default="", compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """Texts by which rows are equal; the same as a `Question`'s where there is one turn of the user."""
        return *(same_text(text) for _, text in self.question), same_text(self.answer)


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain text that goes on from a prompt, which no template surrounds."""

    prompt: str
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    made: bool = False
    name: str = field(default="", compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """Texts by which rows are equal."""
        return same_text(self.prompt), same_text(self.answer)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text of any length."""

    text: str
    name: str = field(default="", compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """The text by which documents are equal."""
        return (same_text(self.text),)


SourceRow = Question | Chat | Completion | Document
Raw = Mapping[str, Any]


def parse_row(raw: Raw, kind: Kind, columns: Mapping[str, str], name: str) -> SourceRow:
    """Return a row of a file; `columns` has the file's columns by the fields of `lethe.config.columns.Columns`. Raises
    UserError, with the row's name and without its text, for a value that is absent, empty or no text."""
    return PARSERS[kind](_Reader(raw, columns, name))


@dataclass(frozen=True)
class _Reader:
    """One row of a file, read by field."""

    raw: Raw
    columns: Mapping[str, str]
    name: str

    def text(self, field: str) -> str:
        """Return the text of a column that every row has."""
        column = self.columns[field]
        value = self.raw.get(column)
        if value is None or (isinstance(value, str) and is_blank(value)):
            raise UserError(f"{self.name}: {column} is empty")
        return self._text(value, column)

    def optional(self, field: str) -> str | None:
        """Return the text of a column that a row may lack."""
        value = self.raw.get(self.columns.get(field, ""))
        if value is None or (isinstance(value, str) and is_blank(value)):
            return None
        return self._text(value, self.columns[field]).strip()

    def variants(self, answer: str) -> dict[str, Any]:
        """Return the paraphrase and the wrong answers of a row with this answer."""
        wrong: list[str] = []
        column = self.columns.get("wrong_answers", "")
        value = self.listed(self.raw.get(column), column)
        for text in value if isinstance(value, list) else [value] if value else []:
            given = self._text(text, column).strip()
            if is_blank(given):
                raise UserError(f"{self.name}: {column} has an empty text")
            if same_text(given) == same_text(answer):
                raise UserError(f"{self.name}: {column} has the right answer")
            wrong.append(given)
        return {"paraphrased_answer": self.optional("paraphrase"), "perturbed_answers": tuple(dict.fromkeys(wrong))}

    def listed(self, value: Any, column: str) -> Any:
        """Return a list that a text has as JSON, as fields of CSV files do; every other value as it is."""
        if not isinstance(value, str) or not value.lstrip().startswith("["):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise UserError(
                f'{self.name}: {column} begins as a list and is no JSON: write ["...", "..."], with double quotes'
            ) from None

    def messages(self) -> list[Message]:
        """Return the roles and texts of a conversation."""
        column = self.columns["messages"]
        messages = self.listed(self.raw.get(column), column)
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise UserError(f"{self.name}: {column} must be a list of objects with role and content")
        return [self._message(message, f"{column}, turn {n}") for n, message in enumerate(messages, 1)]

    def _message(self, message: Raw, where: str) -> Message:
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        if role not in ROLES:
            given = role if isinstance(role, str) and role.isidentifier() else type(role).__name__
            raise UserError(f"{self.name}: {where} has the role {given}: choose from {', '.join(ROLES)}")
        if isinstance(content, list):  # of parts, as models that read images have it
            parts = [part.get("text") if isinstance(part, dict) else part for part in content]
            texts = [part for part in parts if isinstance(part, str)]
            content = "".join(texts) if len(texts) == len(parts) else None
        if not isinstance(content, str) or is_blank(content):
            raise UserError(f"{self.name}: {where} has no text")
        return ROLES[role], content.strip()

    def _text(self, value: Any, column: str) -> str:
        if not isinstance(value, str):
            raise UserError(f"{self.name}: {column} must be text, and is {_type(value)}")
        return value


def _type(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _question(row: _Reader) -> Question:
    question, answer = row.text("question").strip(), row.text("answer").strip()
    if more := row.optional("input"):
        question = f"{question}\n\n{more}"
    other = row.optional("paraphrased_question")
    return Question(question, answer, paraphrased_question=other, name=row.name, **row.variants(answer))


def _completion(row: _Reader) -> Completion:
    prompt, answer = row.text("prompt"), row.text("completion")
    return Completion(prompt, answer, name=row.name, **row.variants(answer))


def _chat(row: _Reader) -> Chat:
    turns, unread = row.messages(), 0
    while turns and turns[-1][0] != "assistant":
        turns.pop()
        unread += 1
    if not any(role == "user" for role, _ in turns):
        raise UserError(f"{row.name}: {row.columns['messages']} needs a turn of the assistant behind one of the user")
    (_, answer) = turns.pop()
    if turns[-1][0] == "assistant":
        raise UserError(f"{row.name}: {row.columns['messages']} has two turns of the assistant in a row: join them")
    return Chat(tuple(turns), answer, unread=unread, name=row.name, **row.variants(answer))


def _document(row: _Reader) -> Document:
    return Document(row.text("text").strip(), row.name)


PARSERS: dict[Kind, Callable[[_Reader], SourceRow]] = {
    "questions": _question,
    "completions": _completion,
    "chats": _chat,
    "documents": _document,
}
