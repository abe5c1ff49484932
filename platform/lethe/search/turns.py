"""When the store hears of a result: at once, or in an order that does not depend on who was faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lethe.search.optuna_study import StudyStore


class Turns:
    """Between trials that end and the store that is told.

    Where the store has a `width` G, proposal n sees the results of trials <= n - G and of no other, told in the order
    of their indices (METHODS section 6). A trial that ends earlier is held back, as if it still ran: G groups wait
    only for one that is more than G - 1 trials behind.
    """

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._held: dict[int, Mapping[str, Any]] = {}
        self._closed = False

    @property
    def running(self) -> int:
        """Trials that have not ended."""
        return self._store.pending - len(self._held)

    def ready(self) -> bool:
        """Whether the next proposal can see what it is to see; what it may see is told."""
        if self._store.width is None:
            return True
        limit = self._store.next_index - self._store.width
        self._release(limit)
        return all(index > limit for index in self._store.open)

    def tell(self, number: int, report: Mapping[str, Any]) -> None:
        """A pending trial has ended with this report."""
        if self._store.width is None or report.get("verdict") == "interrupted":
            self._store.tell(number, report)
            return
        self._held[number] = report
        if self._closed:
            self._release(None)

    def close(self) -> None:
        """There will be no more proposals: nothing is held back but for its turn."""
        self._closed = True
        self._release(None)

    def _release(self, limit: int | None) -> None:
        """Tell what is held, in the order of indices, up to `limit` or to the first that still runs."""
        for index, number in sorted(self._store.open.items()):
            if number not in self._held or (limit is not None and index > limit):
                return
            self._store.tell(number, self._held.pop(number))
