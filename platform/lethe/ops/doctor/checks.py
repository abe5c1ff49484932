"""Checks, each with one line as its result: what is there, or what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from lethe.errors import UserError

State = Literal["ok", "bad", "--"]


class Skipped(Exception):  # noqa: N818  # a skipped check is no error
    """A check that cannot be made here; the message says why."""


@dataclass(frozen=True)
class Check:
    """A named check. `look` returns a line on what is there; it raises UserError, with the cure, for what is wrong, and
    Skipped where the check cannot be made."""

    name: str
    look: Callable[[], str]


def run_checks(checks: Iterable[Check], show: Callable[[str], None] = print) -> int:
    """Make the checks in order, show a line for each and return how many of them failed."""
    wrong = 0
    for check in checks:
        state, line = _run_check(check)
        wrong += state == "bad"
        show(f"{state:<4} {check.name:<9} {' '.join(line.split())}")
    return wrong


def _run_check(check: Check) -> tuple[State, str]:
    try:
        return "ok", check.look()
    except Skipped as reason:
        return "--", str(reason)
    except UserError as error:
        return "bad", str(error)
