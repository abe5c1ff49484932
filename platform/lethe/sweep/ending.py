"""When a study ends before its trials are used up."""

from __future__ import annotations

import time

from lethe.config.stopping import Stop
from lethe.search.optuna_study import StudyStore


class Ending:
    """A study's `stop` rules. `reason` says which one held; empty while none did."""

    def __init__(self, rules: Stop, store: StudyStore) -> None:
        self._rules, self._store = rules, store
        self._began = time.monotonic()
        self._counted = -1
        self.reason = ""

    def __call__(self) -> bool:
        """Whether no more trials should begin."""
        if self.reason:
            return True
        limit = self._rules.seconds
        if limit is not None and time.monotonic() - self._began >= limit:
            self.reason = f"the search has taken {limit / 60:g} minutes"
        elif self._rules.no_growth and self._changed() and not self._grown(self._rules.no_growth):
            self.reason = f"the hypervolume has not grown in {self._rules.no_growth} trials"
        return bool(self.reason)

    def _changed(self) -> bool:
        before, self._counted = self._counted, self._store.counted
        return before != self._counted

    def _grown(self, trials: int) -> bool:
        """Whether the last so many trials, by index, made the front's hypervolume larger; young studies have."""
        told = sorted(self._store.trials(), key=lambda trial: trial.user_attrs["index"])
        if len(told) <= trials:
            return True
        values = [[trial.values for trial in part if trial.values] for part in (told[:-trials], told)]
        before, now = (self._store.frame.hypervolume(rows) if rows else 0.0 for rows in values)
        return now > before
