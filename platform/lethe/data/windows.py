"""Documents of any length as windows of tokens, and rows that are longer than a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from lethe.data.source_rows import Completion, Document, SourceRow
from lethe.data.template import Encoded, Template
from lethe.errors import UserError, first_names


def windows(ids: Sequence[int], length: int, overlap: int, opening: Sequence[int] = ()) -> list[Encoded]:
    """Return windows over the tokens `ids` of a document: `Encoded` rows of at most `length` tokens, each behind
    `opening` (BOS), in which the tokens from `prompt_length` on are scored.

    Every token is scored once, but the first where nothing stands before it. In every window after the first one the
    scored tokens follow at least `overlap` others, or all that the document has before them. Windows score about
    equally many tokens, so that a mean over windows is nearly one over tokens. A document without a token to score has
    no windows. Raises UserError unless 1 <= overlap < length - len(opening).
    """
    most, before = length - len(opening), tuple(opening)
    if not 1 <= overlap < most:
        raise UserError(f"windows of {length} tokens cannot share {overlap}: at least 1 and fewer than {most}")
    unscored, tokens = 0 if before else 1, len(ids)
    if tokens <= unscored:
        return []
    # With as few windows as there can be. The first scores as many as the others, or what they cannot.
    step = most - overlap
    count = 1 + max(0, -(-(tokens - most) // step))
    even = unscored - (-(tokens - unscored) // count)
    first = min(most, max(even, overlap, tokens - (count - 1) * step)) if count > 1 else tokens
    others = max(count - 1, 1)
    ends = [unscored, *(first + (tokens - first) * n // others for n in range(count))]
    found = []
    for scored, end in pairwise(ends):
        start = max(0, end - most)
        found.append(Encoded((*before, *ids[start:end]), len(before) + scored - start))
    return found


def encode_row(row: SourceRow, template: Template, length: int, overlap: int) -> list[Encoded]:
    """Return a row as token ids: the windows of a document, of any other row one. Raises UserError with the row's name
    for what the template cannot render, and for a document of which no token can be predicted."""
    try:
        if isinstance(row, Document):
            opening = template.text_opening
            if not (found := windows(template.text(row.text)[len(opening) :], length, overlap, opening)):
                raise UserError("the text has no token that follows another: there is nothing to predict")
            return found
        if isinstance(row, Completion):
            return [template.continuation(row.prompt, row.answer)]
        return [template.encode(row.question, row.answer)]
    except UserError as error:
        raise UserError(f"{row.name}: {error}") from None


class LongRows(NamedTuple):
    """The names of rows that are `longer` than a model's context, with their numbers of tokens, among all `rows`."""

    longer: tuple[tuple[str, int], ...]
    rows: int

    def __str__(self) -> str:
        """Return what a message says of them: how many, and the first ones by name."""
        return first_names([f"{name} ({tokens})" for name, tokens in self.longer])


def rows_beyond(rows: Iterable[tuple[str, Encoded]], context: int | None) -> LongRows:
    """Return which of the named `rows` have more tokens than `context`; None: any number fits."""
    lengths = [(name, len(row.ids)) for name, row in rows]
    return LongRows(tuple((name, n) for name, n in lengths if context is not None and n > context), len(lengths))
