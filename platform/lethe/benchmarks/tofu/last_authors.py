"""A small benchmark cut out of TOFU: its last authors are forgotten, those before them kept, the next ones held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lethe.config.benchmark import TofuBenchmark
from lethe.data.template import Row
from lethe.errors import UserError

ROWS_PER_AUTHOR = 20  # of TOFU: 200 authors, one after the other

Parts = Mapping[str, tuple[Row, ...]]


def last_authors(config: TofuBenchmark, source: str, parts: Parts, more_variants: Iterable[Row]) -> Parts:
    """Return what `config.authors` makes of the splits `parts`: the last so many authors in `forget`, the
    `config.keep_authors` before them in `retain`, and in `holdout` as many as are forgotten before these.

    `forget_eval` and `retain_eval` are their rows that have variants, in `parts` or among `more_variants`, the rows of
    other forget sets: TOFU's public files have variants of the first 20 and the last 20 authors. Raises UserError where
    there are too few authors, or no variants of either. `source` is named in it.
    """
    forgotten, kept = ROWS_PER_AUTHOR * (config.authors or 0), ROWS_PER_AUTHOR * (config.keep_authors or 0)
    rows = (*parts["retain"], *parts["forget"])
    if len(rows) < (needed := 2 * forgotten + kept):
        raise UserError(
            f"benchmark.authors: {config.authors} to forget, {config.keep_authors} to keep and {config.authors} held"
            f" out have {needed} rows, and {source} has {len(rows)} in {config.retain} and {config.forget}"
        )
    variants = {_pair(row): row for row in (*more_variants, *parts["retain_eval"], *parts["forget_eval"])}

    def with_variants(chosen: tuple[Row, ...], key: str, which: str) -> tuple[Row, ...]:
        found = tuple(variants[_pair(row)] for row in chosen if _pair(row) in variants)
        if not found:
            raise UserError(f"benchmark.{key}: {source} has no paraphrases and wrong answers of the {which} authors")
        return found

    forget, retain = rows[-forgotten:], rows[-forgotten - kept : -forgotten]
    return {
        "forget": forget,
        "retain": retain,
        "forget_eval": with_variants(forget, "authors", "forgotten"),
        "retain_eval": with_variants(retain, "keep_authors", "kept"),
        "holdout": rows[-needed : -forgotten - kept],
    }


def _pair(row: Row) -> tuple[str, str]:
    return row.question, row.answer
