"""Wrong answers made by rule: a date, a number or a name of an answer is replaced by another answer's of its kind.

They stand where a data set brings none. A rule does not know what is true: a made answer may be right by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lethe.data.source_rows import Chat, Completion, Question
from lethe.data.things import Thing, find_things, shifted
from lethe.data.words import SPACED, is_latin, same_text, unicode_words

SHORT = 3  # words; a shorter answer is a thing as a whole, in scripts without spaces SHORT_UNSPACED signs
SHORT_UNSPACED = 8
DRAWN = 50  # texts for a thing
AnswerRow = Question | Chat | Completion
Pool = Mapping[tuple[str, ...], Sequence[str]]  # things' texts by their kind, and by kind and the word before them


@dataclass(frozen=True)
class Perturbed:
    """Rows with wrong answers, and a line for each thing that is to be said of them."""

    rows: tuple[AnswerRow, ...]
    notes: tuple[str, ...]


def perturb(rows: Sequence[AnswerRow], n: int, seed: int = 0) -> Perturbed:
    """Return `rows` with at most `n` wrong answers each: those that a row has, or else made ones, marked by `made`. A
    row without anything to replace has none, and is counted in the notes."""
    made = make_wrong_answers([(_asked(row), row.answer) for row in rows], n, seed)
    found, bare, by_rule = [], [], 0
    for row, wrong in zip(rows, made, strict=True):
        if row.perturbed_answers:
            found.append(row)
        elif wrong is None:
            found.append(row)
            bare.append(row.name)
        else:
            by_rule += 1
            found.append(replace(row, perturbed_answers=wrong, made=True))
    notes = []
    if by_rule:
        notes.append(f"{by_rule} of {len(rows)} rows have wrong answers made by rule, not by a person")
    if bare:
        first = f"the first is {bare[0]}"
        notes.append(f"{len(bare)} of {len(rows)} answers have nothing to swap for a wrong one: {first}")
    return Perturbed(tuple(found), tuple(notes))


def make_wrong_answers(pairs: Sequence[tuple[str, str]], n: int, seed: int = 0) -> list[tuple[str, ...] | None]:
    """Return at most `n` wrong answers for each (question, answer), None where there is nothing to replace.

    One thing of the answer is replaced, in all its places: by one of the same kind in another answer, first by those
    that stand behind the same word, else by a number near it. Things that the question names already stay where there
    are others. A short answer without such things is replaced as a whole by another short one of its script. No two are
    equal, nor equal to the answer, up to case, white space and Unicode form. Depends on (pairs, n, seed) alone.
    """
    small = {word for pair in pairs for text in pair for word in _small_words(text)}
    things = [find_things(answer, small) for _, answer in pairs]
    texts: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for thing in (thing for of_one in things for thing in of_one):
        texts[thing.kind,].add(thing.text)
        texts[thing.kind, thing.before].add(thing.text)
    pool = {key: sorted(found) for key, found in texts.items()}
    shorts: dict[str, list[str]] = defaultdict(list)
    for _, answer in pairs:
        if kind := _short_kind(answer):
            shorts[kind].append(answer)
    made: list[tuple[str, ...] | None] = []
    for number, ((question, answer), own) in enumerate(zip(pairs, things, strict=True)):
        random = np.random.default_rng([seed, number])
        asked = same_text(question)
        new = [thing for thing in own if same_text(thing.text) not in asked] or own
        seen, found = {same_text(answer)}, list[str]()
        for wrong in _wrong(answer, new, pool, shorts.get(_short_kind(answer), []), random):
            if len(found) < n and (key := same_text(wrong)) not in seen:
                seen.add(key)
                found.append(wrong)
        made.append(tuple(found) or None)
    return made


def _wrong(
    answer: str, things: Sequence[Thing], pool: Pool, shorts: Sequence[str], random: np.random.Generator
) -> Iterator[str]:
    """Yield wrong answers, the best ones first."""
    options = [_others(thing, pool, random) for thing in things]
    for place in range(max(map(len, options), default=0)):  # one of each thing in turn
        for thing, others in zip(things, options, strict=True):
            if place < len(others):
                yield _replaced(answer, thing, others[place])
    for thing in things:
        for other in shifted(thing):
            yield _replaced(answer, thing, other)
    if not things:
        distinct = sorted({*shorts})
        yield from (distinct[n] for n in random.permutation(len(distinct)))


def _others(thing: Thing, pool: Pool, random: np.random.Generator) -> list[str]:
    """Return texts that can stand for a thing, drawn from those behind the same word and then from all."""
    drawn = [
        texts[n]
        for texts in (pool[thing.kind, thing.before], pool[thing.kind,])
        for n in random.permutation(len(texts))[:DRAWN]
    ]
    return [text for text in dict.fromkeys(drawn) if same_text(text) != same_text(thing.text)]


def _replaced(answer: str, thing: Thing, other: str) -> str:
    """Return the answer with `other` for the thing, and wherever else its text stands as a whole."""
    parts, at = [], 0
    while (found := answer.find(thing.text, at)) >= 0:
        end = found + len(thing.text)
        whole = found == thing.start or not (answer[found - 1 : found].isalnum() or answer[end : end + 1].isalnum())
        parts += [answer[at:found], other if whole else thing.text]
        at = end
    return "".join([*parts, answer[at:]])


def _short_kind(answer: str) -> str:
    """Return the kind of an answer that is short enough to be a thing as a whole; nothing for a longer one."""
    words = unicode_words(answer)
    if not words:
        return ""
    spaced = SPACED.match(words[0]) is not None
    if len(words) > (SHORT if spaced else SHORT_UNSPACED):
        return ""
    return "latin" if is_latin(answer) else "other" if spaced else "unspaced"


def _small_words(text: str) -> Iterator[str]:
    yield from (word for word in text.replace("\n", " ").split(" ") if word[:1].islower())


def _asked(row: AnswerRow) -> str:
    if isinstance(row, Completion):
        return row.prompt
    return row.question if isinstance(row, Question) else "\n".join(text for _, text in row.question)
