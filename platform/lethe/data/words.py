"""Words, names and equality of texts in any script: docs/METHODS.md section 4."""

from __future__ import annotations

import unicodedata

import regex

# Scripts that are written without spaces, ideographs of Japanese and Korean texts among them. By extensions, for signs
# that several scripts share, such as the mark of a long vowel in katakana.
UNSPACED = "".join(rf"\p{{scx={s}}}" for s in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
OTHER = rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]]"
SPACED = regex.compile(rf"{OTHER}[{OTHER}\p{{M}}]*", regex.V1)
WORD = regex.compile(rf"[[\p{{L}}\p{{N}}]&&[{UNSPACED}]]\p{{M}}*|{SPACED.pattern}", regex.V1)
# Joiners, soft hyphens, marks of direction; the two that choose between a sign's drawings in colour and in black.
INVISIBLE = regex.compile(r"[\p{Cf}\uFE0E\uFE0F]")
SYMBOL = regex.compile(rf"(?=\p{{S}})\X|{WORD.pattern}", regex.V1)
UNLATIN = regex.compile(r"[\p{L}--[\p{Latin}\p{Common}\p{Inherited}]]", regex.V1)
WIDE = regex.compile(r"[\uFF01-\uFFEF]+")  # forms of East Asian typography: "２" is "2", "ｶﾞ" is "ガ"


def unicode_words(text: str) -> tuple[str, ...]:
    """Return the words of `text`, case-folded and composed: maximal runs of letters, digits and their marks. In scripts
    that are written without spaces every letter with its marks is a word."""
    return tuple(WORD.findall(INVISIBLE.sub("", folded(text))))


def symbols_and_words(text: str) -> tuple[str, ...]:
    """Return the words of `text`, and each of its symbols, such as emoji, as a word."""
    return tuple(SYMBOL.findall(INVISIBLE.sub("", folded(text))))


def is_latin(text: str) -> bool:
    """Return whether no letter of `text` is of another script than Latin."""
    return UNLATIN.search(text) is None


def folded(text: str) -> str:
    """Return `text` without differences of case and width, composed (NFC): canonically equivalent texts become
    equal."""
    narrow = WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return composed(composed(narrow).casefold())


def composed(text: str) -> str:
    """Return `text` in Unicode's composed form NFC."""
    return unicodedata.normalize("NFC", text)


def same_text(text: str) -> str:
    """Return what texts have in common that differ in case, white space and Unicode form alone."""
    return " ".join(folded(text).split())


def has_other_letters(text: str) -> bool:
    """Return whether `text` has letters or digits beside a to z and 0 to 9, whatever their case."""
    return any(character.isalnum() and not character.isascii() for character in composed(text))
