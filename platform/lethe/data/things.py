"""The dates, numbers and names in a text: what an answer says, and what another answer of the same form could say."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from typing import NamedTuple

import regex

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
MONTH = rf"(?:{MONTHS}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?)"
DATE = regex.compile(
    rf"\d{{4}}-\d\d?-\d\d?|\d\d?([./])\d\d?\1\d{{2,4}}|(?:\d\d?(?:st|nd|rd|th)? )?{MONTH},? \d{{4}}"
    rf"|{MONTH} \d\d?(?:st|nd|rd|th)?(?:, \d{{4}})?|\d\d?(?:st|nd|rd|th)? {MONTH}"
)
NUMBER = regex.compile(r"\p{Nd}+(?:[.,]\p{Nd}+)*")
YEAR = regex.compile(r"(?:1\d|20)\d\d")
CAPITALISED = r"[\p{Lu}\p{Lt}][\p{L}\p{M}\p{Nd}]*(?:[-’'](?!s\b)[\p{L}\p{M}]+)*"
TITLE = r"(?:(?:Dr|Prof|Mr|Mrs|Ms|St)\.? |\p{Lu}\. ?)"
BETWEEN = r"(?: |(?: (?:of|de|del|der|van|von|da|di|la|al|bin|y|und|and) ){1})"
NAME = regex.compile(rf"(?<![\p{{L}}\p{{M}}\p{{Nd}}]){TITLE}*{CAPITALISED}(?:{BETWEEN}{TITLE}*{CAPITALISED})*")
BEGINS = regex.compile(r"(?:^|[.!?:;…\n])[\s\"'“”«„(\[]*$")  # what a sentence's first word stands behind
WORD_BEFORE = regex.compile(r"(\w+)\W*$")
# First words of sentences that are no names, also where the texts have them nowhere in small letters.
FIRST_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "in",
        "on",
        "at",
        "by",
        "of",
        "to",
        "for",
        "from",
        "it",
        "its",
        "he",
        "she",
        "they",
        "his",
        "her",
        "their",
        "we",
        "our",
        "i",
        "my",
        "you",
        "your",
        "this",
        "that",
        "these",
        "those",
        "there",
        "yes",
        "no",
        "not",
        "one",
        "some",
        "all",
        "both",
        "as",
        "after",
        "before",
        "during",
        "when",
        "while",
        "since",
        "with",
        "without",
        "born",
    ]
)


class Thing(NamedTuple):
    """A date, number or name in a text, from `start` to `end`. `kind` is equal for what can stand in its place;
    `before` is the word in front of it."""

    start: int
    end: int
    text: str
    kind: str
    before: str


def find_things(text: str, small: Collection[str]) -> list[Thing]:
    """Return the things in `text`, in order. `small` are the words that the set has in small letters: such a word at
    the beginning of a sentence is no name."""
    taken: list[tuple[int, int]] = []
    found = []
    for kind, start, end in (*_dates(text), *_numbers(text), *_names(text, small)):
        if all(end <= other or start >= stop for other, stop in taken):
            taken.append((start, end))
            before = WORD_BEFORE.search(text[:start])
            found.append(Thing(start, end, text[start:end], kind, before[1].lower() if before else ""))
    return sorted(found)


def shifted(thing: Thing) -> Iterator[str]:
    """Yield dates and numbers that are near a date or number, in its form; nothing for a name."""
    if thing.kind.startswith("name"):
        return
    # Of a date the year, so that no day is the 32nd.
    runs = [run for run in NUMBER.finditer(thing.text) if not thing.kind.startswith("date") or len(run[0]) == 4]
    for step in (1, -1, 2, -2, 3, -3, 5, -5, 10, -10):
        for run in runs:
            if (other := _plus(run[0], step)) is not None:
                yield thing.text[: run.start()] + other + thing.text[run.end() :]


def _plus(number: str, step: int) -> str | None:
    """Return a number as it is written with `step` added to its digits, None where it would be longer or negative."""
    digits = [character for character in number if character.isdigit()]
    value = int("".join(digits)) + step
    written = str(value).zfill(len(digits))
    if value < 0 or len(written) > len(digits) or (written[0] == "0" != digits[0]):
        return None
    zero = ord(digits[0]) - unicodedata.digit(digits[0])  # of the digits' script
    others = iter(written)
    return "".join(chr(zero + int(next(others))) if character.isdigit() else character for character in number)


def _dates(text: str) -> Iterator[tuple[str, int, int]]:
    for found in DATE.finditer(text):
        form = regex.sub(rf"{MONTH}|\d+(?:st|nd|rd|th)?", lambda part: "0" if part[0][0].isdigit() else "M", found[0])
        yield f"date {form}", found.start(), found.end()


def _numbers(text: str) -> Iterator[tuple[str, int, int]]:
    for found in NUMBER.finditer(text):
        kind = "year" if YEAR.fullmatch(found[0]) else "number"
        yield kind, found.start(), found.end()


def _names(text: str, small: Collection[str]) -> Iterator[tuple[str, int, int]]:
    for found in NAME.finditer(text):
        start, end = found.span()
        if BEGINS.search(text[:start]):
            first = regex.match(r"[\p{L}\p{M}]+", text[start:end])
            if first and (first[0].lower() in small or first[0].lower() in FIRST_WORDS):
                rest = NAME.search(text[start + first.end() : end])
                if rest is None:
                    continue
                start += first.end() + rest.start()
        yield f"name of {len(text[start:end].split())}", start, end
