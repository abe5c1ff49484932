"""Reading one's own data, and refusing parts that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lethe.config.base import canonical_json, short_digest
from lethe.config.columns import Columns
from lethe.config.own import OwnBenchmark
from lethe.data.alternatives import RULES, find_alternatives
from lethe.data.overlap import overlap
from lethe.data.perturbing import perturb
from lethe.data.source_rows import Document, Question
from lethe.data.sources import Source, read_source
from lethe.errors import UserError, first_names

PartName = Literal["forget", "retain", "holdout", "general", "earlier"]
REMEDY = "take them out of one of the two, or set benchmark.allow_overlap"


def load_parts(config: OwnBenchmark) -> dict[PartName, Source]:
    """Read the parts that `config` names. Raises UserError for what cannot be read, a holdout of another kind than the
    rows to forget, general text that is none, and rows that two parts share."""
    own, retain = config.columns, config.retain_columns or config.columns
    columns: dict[PartName, Columns] = {
        "forget": own,
        "retain": retain,
        "holdout": own,
        "general": Columns(),
        "earlier": own,
    }
    parts: dict[PartName, Source] = {}
    for name, of_part in columns.items():
        if source := getattr(config, name):
            try:
                parts[name] = read_source(source, of_part)
            except UserError as error:
                raise UserError(f"benchmark.{name}: {error}") from None
    _check_kinds(parts)
    if config.made_answers:
        parts["forget"] = _with_made_answers(parts["forget"], config.made_answers)
    if not config.allow_overlap:
        _check_overlap(parts)
    return parts


def _with_made_answers(source: Source, most: int) -> Source:
    """Return the source with wrong answers of rows that have none, at most so many each, and what is said of them."""
    rows = [row for row in source.rows if not isinstance(row, Document)]
    if not rows:
        raise UserError(f"benchmark.made_answers: {source.name} has documents, which have no answers: leave it out")
    made = perturb(rows, most)
    return replace(source, rows=made.rows, notes=(*source.notes, *(f"{source.name}: {note}" for note in made.notes)))


def alternatives_of(config: OwnBenchmark, parts: Mapping[PartName, Source]) -> tuple[tuple[str, ...], ...]:
    """Return the other answers to each forget question, if `config` asks for them. Raises UserError for rows that are
    no questions and for questions without."""
    if not config.alternatives:
        return ()
    rows = [row for row in parts["forget"].rows if isinstance(row, Question)]
    if len(rows) < len(parts["forget"].rows):
        kind = parts["forget"].kind
        raise UserError(f"benchmark.alternatives: they answer questions, and benchmark.forget has {kind}: leave it out")
    return find_alternatives(config.alternatives, rows)


def digest_of(
    config: OwnBenchmark, parts: Mapping[PartName, Source], alternatives: tuple[tuple[str, ...], ...] = ()
) -> str:
    """Return 16 hex digits over the rows of all parts, how documents are read, and the alternatives, if any, or how
    they are made."""
    read: list[Any] = [config.window, config.overlap] if any(p.kind == "documents" for p in parts.values()) else []
    more = [alternatives or RULES] if config.alternatives else []
    return short_digest(canonical_json([*read, {name: part.digest for name, part in parts.items()}, *more]))


def _check_kinds(parts: Mapping[PartName, Source]) -> None:
    forget, holdout, general = parts["forget"], parts.get("holdout"), parts.get("general")
    if holdout and holdout.kind != forget.kind:
        raise UserError(
            f"benchmark.holdout: {holdout.name} has {holdout.kind}, and benchmark.forget {forget.kind}: rows that are"
            " compared must be of one kind"
        )
    if general and general.kind != "documents":
        raise UserError(f"benchmark.general: {general.name} has {general.kind}: give plain text")


@dataclass(frozen=True)
class _Pair:
    """Two parts that must not share rows, and what it would mean."""

    one: PartName
    other: PartName
    meaning: str


PAIRS = (
    _Pair("forget", "retain", "they would be forgotten and kept"),
    _Pair("holdout", "forget", "the holdout must be unseen"),
    _Pair("holdout", "retain", "the holdout must be unseen"),
    _Pair("earlier", "retain", "they would stay forgotten and be kept"),
    _Pair("holdout", "earlier", "the holdout must be unseen"),
    _Pair("general", "forget", "they would be forgotten and kept"),
)


def _check_overlap(parts: Mapping[PartName, Source]) -> None:
    """Raise UserError, with the names of rows and none of their text, for the first of `PAIRS` that shares rows."""
    for pair in PAIRS:
        if pair.one not in parts or pair.other not in parts:
            continue
        one, other = parts[pair.one], parts[pair.other]
        shared = [f"{name} is {there}" for name, there in overlap(one, other)]
        if shared:
            raise UserError(
                f"benchmark.{pair.one}: {len(shared)} of {len(one.rows)} rows are also in benchmark.{pair.other}"
                f" ({first_names(shared)}): {pair.meaning}: {REMEDY}"
            )
