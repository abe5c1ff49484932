"""Private text: the form of rows' text that may be stored, and names of rows that say nothing about it.

Text becomes its stored form in the worker, before it leaves it as a record, a file or a message: see
`lethe.unlearning.context.Context.shown`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lethe.config.privacy import StoredText
from lethe.data.words import INVISIBLE, WORD, composed, folded, same_text
from lethe.storage.files import atomic_file
from lethe.storage.paths import object_of
from lethe.storage.replica import local_path

SALT = "salt"  # in a study's folder, which is not published
LONGEST = 5  # words in a row that another text may not share with a row that is withheld
WITHHELD = "[withheld]"
FORGET = ("forget", "earlier")  # how the names of splits begin whose rows are to be forgotten, or were
ESCAPE = re.compile(r"\\(?:[nrt]|x[0-9a-f]{2}|u(?!d[89a-f])[0-9a-f]{4})")  # as repr and JSON write characters


def row_hash(salt: bytes, *texts: str) -> str:
    """Return 16 hex digits of HMAC-SHA256(salt, texts) for one row, its question and answer or its document: equal for
    texts that differ in case, white space and Unicode form alone. Empty texts do not count."""
    # `same_text` leaves no line end in a text, so that ("a b", "c") and ("a", "b c") differ.
    normalised = "\n".join(filter(None, map(same_text, texts)))
    return hmac.new(salt, normalised.encode(), hashlib.sha256).hexdigest()[:16]


def study_salt(folder: Path) -> bytes:
    """Return the salt of the study in `folder`, 32 random bytes, which are made at the first call and stored for the
    owner's eyes alone."""
    path = local_path(folder / SALT)
    if not path.exists():
        with atomic_file(path, mode=0o600) as file:
            file.write(secrets.token_bytes(32))
        if at := object_of(path):
            objects, name = at
            objects.put(name, path)
    return path.read_bytes()


class ShownText:
    """The form of texts that a study which stores `rule` of its rows' text may show. `rows` returns the texts that are
    withheld; it is called once, when a text has to be compared with them.

    With `redact` any other text is withheld, too, that has a whole withheld text or `LONGEST` of its words in a row:
    a model repeats what it has learned, whatever it was asked.
    """

    def __init__(self, rule: StoredText, rows: Callable[[], Iterable[str]]) -> None:
        self.rule = rule
        self._rows = rows

    def columns(self, columns: Mapping[str, list[Any]], salt: bytes | None = None) -> dict[str, list[Any]]:
        """Return an evaluation's columns of values by row with None for each text that is withheld, and without columns
        that have nothing left. With a `salt` the rows to forget get their `row_hash`, of their question and answer."""
        if self.rule == "keep":
            return dict(columns)
        splits = columns.get("split", [])
        shown = {
            name: [self._cell(value, split) for value, split in zip(column, splits, strict=True)]
            for name, column in columns.items()
            if name != "split"
        }
        left = {
            name: column
            for name, column in shown.items()
            if column == columns[name] or any(value is not None for value in column)
        }
        hashes = {} if salt is None else {"row_hash": [*_hashes(columns, salt)]}
        return {"split": splits, **left, **hashes}

    def _cell(self, value: Any, split: str) -> Any:
        texts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        texts = [text for text in texts if isinstance(text, str)]
        if not texts:
            return value
        return None if split.startswith(FORGET) or self.rule == "none" or any(map(self._is_withheld, texts)) else value

    def message(self, text: str) -> str:
        """Return an error's message with `WITHHELD` in place of every stretch of words that a withheld text has."""
        if self.rule == "keep":
            return text
        plain = INVISIBLE.sub("", composed(ESCAPE.sub(_unescaped, text)))
        parts, at = [], 0
        for start, end in self._stretches(plain):
            parts += [plain[at:start], WITHHELD]
            at = end
        return "".join([*parts, plain[at:]]) if parts else text

    def _is_withheld(self, text: str) -> bool:
        return any(True for _ in self._stretches(INVISIBLE.sub("", composed(text))))

    def _stretches(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield beginning and end of each maximal part of `text` that withheld texts share with it."""
        found = [(match.start(), match.end(), folded(match[0])) for match in WORD.finditer(text)]
        words = [word for _, _, word in found]
        start, end = 0, -1
        for first in range(len(words)):
            fitting = (n for n in self._lengths if first + n <= len(words))
            lengths = [n for n in fitting if tuple(words[first : first + n]) in self._shared]
            if not lengths:
                continue
            last = first + max(lengths) - 1
            if first > end >= 0:
                yield found[start][0], found[end][1]
            if first > end:
                start = first
            end = max(end, last)
        if end >= 0:
            yield found[start][0], found[end][1]

    @cached_property
    def _shared(self) -> set[tuple[str, ...]]:
        """The sequences of words that no other text may have: whole texts, or of longer ones `LONGEST` in a row."""
        shared = set()
        for text in self._rows():
            words = [folded(word) for word in WORD.findall(INVISIBLE.sub("", composed(text)))]
            length = min(LONGEST, len(words))
            shared |= {tuple(words[i : i + length]) for i in range(len(words) - length + 1)} if words else set()
        return shared

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(words) for words in self._shared})


def _hashes(columns: Mapping[str, list[Any]], salt: bytes) -> Iterator[str | None]:
    size = len(columns["split"])
    questions, answers = (columns.get(name) or [None] * size for name in ("question", "answer"))
    for split, question, answer in zip(columns["split"], questions, answers, strict=True):
        has_text = split.startswith(FORGET) and (question or answer)
        yield row_hash(salt, question or "", answer or "") if has_text else None


def _unescaped(found: re.Match[str]) -> str:
    code = found[0][1:]
    return " " if code in ("n", "r", "t") else chr(int(code[1:], 16))
