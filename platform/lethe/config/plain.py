"""Values from YAML: what no setting can mean is refused before anything reads it."""

from __future__ import annotations

from typing import Any

from lethe.errors import UserError

WHOLE = 2**32  # whole numbers are smaller: the largest that numpy takes for a seed
LARGEST, SMALLEST = 1e30, 1e-30  # single precision has no numbers far beyond
DEEPEST, MOST_NODES = 32, 100_000


def check_plain(value: Any, source: str) -> None:
    """Raise UserError, in which `source` names the text that `value` was read from, for numbers that are out of range,
    blank texts and characters that no text has, and for values that are nested too deep, in themselves even, or too
    many. Infinite numbers are left to the fields, some of which have words of their own for them."""
    left = MOST_NODES

    def check(value: Any, key: str, depth: int) -> None:
        nonlocal left
        left -= 1
        if depth > DEEPEST:
            raise UserError(f"{source}: {_shortened(key)}: is nested more than {DEEPEST} deep, or contains itself")
        if left < 0:
            raise UserError(f"{source}: has more than {MOST_NODES} values")
        if problem := _problem(value):
            raise UserError(f"{source}: {key + ': ' if key else ''}{problem}")
        if isinstance(value, dict):
            for name, below in value.items():
                if not isinstance(name, str):
                    raise UserError(f"{source}: {key or 'a key'}: {name!r} is no text: put it in quotes")
                check(name, key, depth + 1)
                check(below, f"{key}.{name}" if key else name, depth + 1)
        elif isinstance(value, list | tuple | set):
            for number, below in enumerate(value):
                check(below, f"{key}[{number}]", depth + 1)

    check(value, "", 0)


def _problem(value: Any) -> str | None:
    """Return what is wrong with a single value, None where nothing is."""
    if isinstance(value, int) and abs(value) >= WHOLE:
        return f"must be less than 2^32, given {value}"
    if isinstance(value, float) and value and not SMALLEST <= abs(value) <= LARGEST and abs(value) < float("inf"):
        return f"must be 0 or lie between {SMALLEST:g} and {LARGEST:g}, given {value:g}"
    if isinstance(value, str):
        if not value.strip():
            return f"must not be blank, given {value!r}"
        if odd := [char for char in value if (char < " " and char not in "\t\n\r") or "\ud800" <= char <= "\udfff"]:
            return f"has a character that no text has, {odd[0]!r}"
    return None


def _shortened(key: str) -> str:
    return key if len(key) <= 40 else f"{key[:40]}..."
