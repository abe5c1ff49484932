"""What is to be said about a run, and what was said: plain values that the driver fills and a thread sends."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lethe.records import Scalar, TrialRecord, Verdict

# MLflow has one word for what went wrong and one for what was ended from outside.
STATUS: dict[Verdict, str] = {"complete": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}
LONGEST_VALUE = 5000  # MLflow refuses tags above 8000 and parameters above 6000 characters
_REFUSED = re.compile(r"[^\w\-. :/]")

Numbers = dict[str, float]


@dataclass
class Report:
    """One report of a trial and when it arrived."""

    metrics: Numbers
    at_ms: int


@dataclass(eq=False)
class Entry:
    """One trial. The driver's thread adds reports and the end; the tracker's thread sets what the store knows.

    Sending is sending what the store does not know, so a failed attempt needs nothing but another one.
    """

    run: str
    number: int
    params: dict[str, Scalar] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    end: TrialRecord | None = None
    began_ms: int = 0
    reopen: bool = False
    asked: bool = False
    run_id: str | None = None
    introduced: bool = False
    sent: set[int] = field(default_factory=set)
    told: Verdict | None = None
    marks: tuple[int | None, bool] = (None, False)

    @property
    def behind(self) -> bool:
        """Whether the store knows less than the driver."""
        return not self.introduced or self.reopen or self.ending or not self.sent >= self.reports.keys()

    @property
    def left_over(self) -> bool:
        """Whether this is an unfinished run that an earlier session left, and nobody took up yet."""
        return self.run_id is not None and not self.began_ms and self.end is None and self.told in (None, "interrupted")

    @property
    def ending(self) -> bool:
        """Whether the verdict is known here and not there."""
        return self.end is not None and self.told != self.end.verdict

    def begin(self, number: int, params: dict[str, Scalar]) -> None:
        """The run starts, perhaps again after an interruption."""
        self.number, self.params, self.began_ms = number, params, now_ms()
        self.reopen, self.end, self.told = self.run_id is not None, None, None

    def add_report(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """A report counts once, by its epoch: an equal run reports equal numbers again."""
        if epoch not in self.sent:
            self.reports.setdefault(epoch, Report(numbers(metrics) | {"epoch": float(epoch)}, now_ms()))

    def add_end(self, trial: TrialRecord) -> None:
        """The trial's end, with whatever reports were missed."""
        self.number, self.params, self.reopen = trial.number, trial.params, False
        for place, metrics in enumerate(trial.series, start=1):
            self.add_report(epoch_of(metrics, place), metrics)
        self.end = trial


class Entries:
    """The trials of a study. One entry per number; a resumed study may run a left-over run under a new number.

    Both threads use it: it only grows, and is walked over in copies.
    """

    def __init__(self) -> None:
        self._all: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._all))

    def of(self, run: str, number: int) -> Entry:
        """The trial's entry, perhaps a left-over one of an equal run, perhaps a new one."""
        equal = [entry for entry in self if entry.run == run]
        found = next((entry for entry in equal if entry.number == number), None)
        found = found or next((entry for entry in equal if entry.left_over), None)
        return found or self._add(Entry(run, number))

    def stored(self, run: str, number: int, unfinished: bool) -> Entry:
        """The entry that a run of the store belongs to; an unfinished one may have begun again meanwhile."""
        equal = [entry for entry in self if entry.run == run and entry.run_id is None]
        found = next((entry for entry in equal if entry.number == number or unfinished), None)
        return found or self._add(Entry(run, number))

    def _add(self, entry: Entry) -> Entry:
        self._all.append(entry)
        return entry


def numbers(values: Mapping[str, Any]) -> Numbers:
    """What is numeric, under names that MLflow accepts. NaN and infinities stay: they are facts."""
    return {
        _REFUSED.sub("_", key): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def last_numbers(end: TrialRecord) -> tuple[int, Numbers]:
    """What no report of a trial said, and the epoch that it belongs to."""
    reported = end.series[-1] if end.series else {}
    values = numbers(end.metrics) | ({"wall_seconds": end.ended - end.began} if end.ended else {})
    return epoch_of(end.metrics, len(end.series)), {key: value for key, value in values.items() if key not in reported}


def text(value: Any) -> str:
    """A parameter or tag as MLflow stores it."""
    return str(value)[:LONGEST_VALUE]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names; lists stay whole."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield _REFUSED.sub("_", f"{prefix}{key}"), value


def epoch_of(metrics: Mapping[str, Any], otherwise: int) -> int:
    """A report's own epoch; reports without one are counted."""
    epoch = metrics.get("epoch", otherwise)
    return int(epoch) if math.isfinite(epoch) else otherwise


def now_ms() -> int:
    """The time as MLflow counts it."""
    return int(time.time() * 1000)
