"""A check and what it finds: one line that says what is there, or what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from lethe.errors import UserError

State = Literal["ok", "bad", "--"]


class Skipped(Exception):
    """A check that cannot be made here; the message says why."""


@dataclass(frozen=True)
class Check:
    """`look` returns what it found, raises BadInput for what is wrong, with the cure, and Skipped."""

    name: str
    look: Callable[[], str]


def run_checks(checks: Iterable[Check], show: Callable[[str], None] = print) -> int:
    """Make the checks in order, show a line for each and return how many found something wrong."""
    wrong = 0
    for check in checks:
        state, said = _made(check)
        wrong += state == "bad"
        show(f"{state:<4} {check.name:<9} {' '.join(said.split())}")
    return wrong


def _made(check: Check) -> tuple[State, str]:
    try:
        return "ok", check.look()
    except Skipped as reason:
        return "--", str(reason)
    except UserError as error:
        return "bad", str(error)
