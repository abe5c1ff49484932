"""The trials of a study as its tracker knows them: plain values that the driver fills and a thread sends to MLflow."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lethe.records import Metrics, Scalar, TrialRecord, Verdict

LONGEST_VALUE = 5000  # MLflow refuses tags above 8000 and parameters above 6000 characters
GIVE_UP_S = 60.0  # the end of a study waits no longer for a store that takes nothing
_REFUSED = re.compile(r"[^\w\-. :/]")


@dataclass
class TrackedReport:
    """The metrics of one report of a trial, and when it arrived, in milliseconds since 1970."""

    metrics: Metrics
    at_ms: int


class Marks(NamedTuple):
    """A trial's place among the others, which later trials change: its Pareto rank, and whether it is on the front."""

    rank: int | None
    on_front: bool


NO_MARKS = Marks(None, False)


@dataclass(eq=False)
class TrackedTrial:
    """A trial, with the state of its run in the store.

    The driver's thread sets `number`, `params`, `reports` (by epoch), `end`, `began_ms` (0: not in this session) and
    `reopen` (the store has the run as ended, but it runs again). The tracker's thread sets the rest: `run_id` is
    MLflow's, None before the run was created or found; `create_attempted`, `params_logged`, `sent_epochs`,
    `stored_verdict`, `stored_marks` and `stored_name` say what has been sent. Sending sends what the store lacks, so
    that a failed attempt needs nothing but another one.
    """

    run: str
    number: int
    params: dict[str, Scalar] = field(default_factory=dict)
    reports: dict[int, TrackedReport] = field(default_factory=dict)
    end: TrialRecord | None = None
    began_ms: int = 0
    reopen: bool = False
    run_id: str | None = None
    create_attempted: bool = False
    params_logged: bool = False
    sent_epochs: set[int] = field(default_factory=set)
    stored_verdict: Verdict | None = None
    stored_marks: Marks = NO_MARKS
    stored_name: str = ""

    @property
    def is_behind(self) -> bool:
        """True if the store lacks something of the trial."""
        reports_lack = not self.sent_epochs >= self.reports.keys()
        return not self.params_logged or self.reopen or self.end_is_unsent or reports_lack

    @property
    def is_left_over(self) -> bool:
        """True if the store has this run unfinished from an earlier session, and this session has not taken it up."""
        unfinished = self.end is None and self.stored_verdict in (None, "interrupted")
        return self.run_id is not None and not self.began_ms and unfinished

    @property
    def end_is_unsent(self) -> bool:
        """True if the trial has ended with a verdict that the store does not have."""
        return self.end is not None and self.stored_verdict != self.end.verdict

    def begin(self, number: int, params: dict[str, Scalar]) -> None:
        """Note that the trial starts, perhaps again after an interruption."""
        self.number, self.params, self.began_ms = number, params, now_ms()
        self.reopen, self.end, self.stored_verdict = self.run_id is not None, None, None

    def add_report(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Add a report, once per epoch: an equal run reports equal numbers again."""
        if epoch not in self.sent_epochs:
            self.reports.setdefault(epoch, TrackedReport(numeric_metrics(metrics) | {"epoch": float(epoch)}, now_ms()))

    def add_end(self, trial: TrialRecord) -> None:
        """Add the trial's end, and those of its reports that were not added before."""
        self.number, self.params, self.reopen = trial.number, trial.params, False
        for place, metrics in enumerate(trial.series, start=1):
            self.add_report(epoch_of(metrics, place), metrics)
        self.end = trial


class TrackedTrials:
    """The trials of a study, one per number; a resumed study may take up a left-over run under a new number.

    Used by two threads: it only grows, and iteration goes over a copy.
    """

    def __init__(self) -> None:
        self._trials: list[TrackedTrial] = []

    def __iter__(self) -> Iterator[TrackedTrial]:
        return iter(tuple(self._trials))

    def get(self, run: str, number: int) -> TrackedTrial:
        """Return the trial with this run hash and number, else a left-over one with this hash, else a new one."""
        equal = [trial for trial in self if trial.run == run]
        known = next((trial for trial in equal if trial.number == number), None)
        known = known or next((trial for trial in equal if trial.is_left_over), None)
        return known or self._add(TrackedTrial(run, number))

    def get_stored(self, run: str, number: int, unfinished: bool) -> TrackedTrial:
        """Return the trial to which a run of the store belongs, a new one if none does; an `unfinished` run may have
        begun again meanwhile, under another number."""
        equal = [trial for trial in self if trial.run == run and trial.run_id is None]
        known = next((trial for trial in equal if trial.number == number or unfinished), None)
        return known or self._add(TrackedTrial(run, number))

    def _add(self, trial: TrackedTrial) -> TrackedTrial:
        self._trials.append(trial)
        return trial


def numeric_metrics(values: Mapping[str, Any]) -> Metrics:
    """Return the numbers among `values`, under names that MLflow accepts. NaN and infinities stay: they are facts."""
    return {
        _REFUSED.sub("_", key): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def unreported_metrics(end: TrialRecord) -> tuple[int, Metrics]:
    """Return the epoch of a trial's last metrics, and those of them that its last report does not have, with the wall
    time in seconds if it is known."""
    reported = end.series[-1] if end.series else {}
    values = numeric_metrics(end.metrics) | ({"wall_seconds": end.ended - end.began} if end.ended else {})
    return epoch_of(end.metrics, len(end.series)), {key: value for key, value in values.items() if key not in reported}


def clip_text(value: Any) -> str:
    """Return a parameter or tag as text that MLflow can store, cut after `LONGEST_VALUE` characters."""
    return str(value)[:LONGEST_VALUE]


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings under dotted names that MLflow accepts; lists stay as they are."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten_settings(value, f"{prefix}{key}.")
        else:
            yield _REFUSED.sub("_", f"{prefix}{key}"), value


def epoch_of(metrics: Mapping[str, Any], otherwise: int) -> int:
    """Return the epoch that a report names, `otherwise` where it names none."""
    epoch = metrics.get("epoch", otherwise)
    return int(epoch) if math.isfinite(epoch) else otherwise


def now_ms() -> int:
    """Return the time in milliseconds since 1970, as MLflow has it."""
    return int(time.time() * 1000)


def verdict_tags(trial: TrialRecord) -> dict[str, str]:
    """Return the tags of a front member's verdict: `forgotten`, and `forgotten.why` with what fails."""
    if trial.forgotten is None:
        return {}
    why = "; ".join(criterion.describe() for criterion in trial.forgotten.failing)
    return {"forgotten": trial.forgotten.forgotten, "forgotten.why": why or "every criterion holds"}
