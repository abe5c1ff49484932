"""Rows that parts of the data must not share: forgotten and kept at once, unseen and trained on, or there twice."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from lethe.data.sources import Source
from lethe.errors import UserError


def refuse_shared(source: str, parts: Mapping[str, Sequence[Hashable]], pairs: Iterable[tuple[str, str]]) -> None:
    """Raise UserError for the first of `pairs`, names of `parts`, whose parts share a row. Rows are given as what makes
    them equal; `source` is named."""
    for one, other in pairs:
        known = {*parts[other]}
        shared = [number for number, row in enumerate(parts[one], 1) if row in known]
        refuse_rows(source, shared, one, len(parts[one]), f"also in {other}")


def refuse_repeated(source: str, part: str, rows: Sequence[Hashable]) -> None:
    """Raise UserError for rows that a `part` has had before: they would count twice."""
    first = {row: number for number, row in reversed([*enumerate(rows, 1)])}
    repeated = [number for number, row in enumerate(rows, 1) if first[row] != number]
    refuse_rows(source, repeated, part, len(rows), "there before")


def refuse_rows(source: str, numbers: Sequence[int], part: str, rows: int, what: str) -> None:
    """Raise UserError if there are `numbers` of rows of a `part` with so many `rows`: it says `what` they are."""
    if numbers:
        raise UserError(
            f"{source}: {len(numbers)} of {rows} rows of {part} are {what}, the first is row {numbers[0]}:"
            " mend the data, or set benchmark.allow_overlap"
        )


def overlap(one: Source, other: Source) -> list[tuple[str, str]]:
    """Return the names of the rows of `one` that `other` has too, each with the name that it has there. Rows are equal
    up to case, white space and Unicode form."""
    there = {row.key: row.name for row in other.rows}
    return [(row.name, there[row.key]) for row in one.rows if row.key in there]
