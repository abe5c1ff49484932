"""One run as those see it who wait for its reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from lethe.pool.mailbox import Report


class Request:
    """A run in the mailbox, submitted once and again whenever the mailbox has died and forgotten it. `claim` is the
    name of whoever asks for it."""

    def __init__(self, mailbox: Any, run: str, payload: dict[str, Any], shape: str, claim: str) -> None:
        self._mailbox, self._run = mailbox, run
        self._submission = (run, payload, shape, claim)
        self._submit()

    def report(self, seen: int, get: Callable[[Any], Any] = ray.get) -> Report:
        """The report after the first `seen`, whose answer is "continue". `get` waits for a reference."""
        while (found := get(self._mailbox.next_report.remote(self._run, seen))) is None:
            if not self._submit():
                return {"final": True, "verdict": "stopped"}
        return found

    def _submit(self) -> bool:
        return ray.get(self._mailbox.submit.remote(*self._submission))
