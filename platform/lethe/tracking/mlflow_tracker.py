"""What is to be said about a run, and what was said: plain values that the driver fills and a thread sends.

MLflow as a study's log. The study's loop never waits for it: a thread holds the client and sends what is new.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from lethe.config.addresses import without_password
from lethe.records import Scalar, StudyRecord, TrialRecord, Verdict
from lethe.tracking.connection import check_login, check_uri, quiet_mlflow, resolve_uri, study_link

if TYPE_CHECKING:
    from lethe.tracking.mlflow_store import MlflowStore


# MLflow has one word for what went wrong and one for what was ended from outside.
STATUS: dict[Verdict, str] = {"complete": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}
LONGEST_VALUE = 5000  # MLflow refuses tags above 8000 and parameters above 6000 characters
_REFUSED = re.compile(r"[^\w\-. :/]")

Numbers = dict[str, float]


@dataclass
class TrackedReport:
    """One report of a trial and when it arrived."""

    metrics: Numbers
    at_ms: int


@dataclass(eq=False)
class TrackedTrial:
    """One trial. The driver's thread adds reports and the end; the tracker's thread sets what the store knows.

    Sending is sending what the store does not know, so a failed attempt needs nothing but another one.
    """

    run: str
    number: int
    params: dict[str, Scalar] = field(default_factory=dict)
    reports: dict[int, TrackedReport] = field(default_factory=dict)
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
            self.reports.setdefault(epoch, TrackedReport(numeric_metrics(metrics) | {"epoch": float(epoch)}, now_ms()))

    def add_end(self, trial: TrialRecord) -> None:
        """The trial's end, with whatever reports were missed."""
        self.number, self.params, self.reopen = trial.number, trial.params, False
        for place, metrics in enumerate(trial.series, start=1):
            self.add_report(epoch_of(metrics, place), metrics)
        self.end = trial


class TrackedTrials:
    """The trials of a study. One entry per number; a resumed study may run a left-over run under a new number.

    Both threads use it: it only grows, and is walked over in copies.
    """

    def __init__(self) -> None:
        self._all: list[TrackedTrial] = []

    def __iter__(self) -> Iterator[TrackedTrial]:
        return iter(tuple(self._all))

    def of(self, run: str, number: int) -> TrackedTrial:
        """The trial's entry, perhaps a left-over one of an equal run, perhaps a new one."""
        equal = [entry for entry in self if entry.run == run]
        found = next((entry for entry in equal if entry.number == number), None)
        found = found or next((entry for entry in equal if entry.left_over), None)
        return found or self._add(TrackedTrial(run, number))

    def stored(self, run: str, number: int, unfinished: bool) -> TrackedTrial:
        """The entry that a run of the store belongs to; an unfinished one may have begun again meanwhile."""
        equal = [entry for entry in self if entry.run == run and entry.run_id is None]
        found = next((entry for entry in equal if entry.number == number or unfinished), None)
        return found or self._add(TrackedTrial(run, number))

    def _add(self, entry: TrackedTrial) -> TrackedTrial:
        self._all.append(entry)
        return entry


def numeric_metrics(values: Mapping[str, Any]) -> Numbers:
    """What is numeric, under names that MLflow accepts. NaN and infinities stay: they are facts."""
    return {
        _REFUSED.sub("_", key): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def last_numbers(end: TrialRecord) -> tuple[int, Numbers]:
    """What no report of a trial said, and the epoch that it belongs to."""
    reported = end.series[-1] if end.series else {}
    values = numeric_metrics(end.metrics) | ({"wall_seconds": end.ended - end.began} if end.ended else {})
    return epoch_of(end.metrics, len(end.series)), {key: value for key, value in values.items() if key not in reported}


def clip_text(value: Any) -> str:
    """A parameter or tag as MLflow stores it."""
    return str(value)[:LONGEST_VALUE]


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names; lists stay whole."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten_settings(value, f"{prefix}{key}.")
        else:
            yield _REFUSED.sub("_", f"{prefix}{key}"), value


def epoch_of(metrics: Mapping[str, Any], otherwise: int) -> int:
    """A report's own epoch; reports without one are counted."""
    epoch = metrics.get("epoch", otherwise)
    return int(epoch) if math.isfinite(epoch) else otherwise


def now_ms() -> int:
    """The time as MLflow counts it."""
    return int(time.time() * 1000)


log = logging.getLogger("lethe.tracking")
RETRY_S = 10.0


class MlflowTracker:
    """A `Tracker` over an MLflow store; raises BadInput within seconds where the store cannot be reached or written.

    Methods change an `Entry` and name it in the inbox; the thread sends what the store lacks of it. So reports that
    arrive faster than the store takes them travel together. A store that failed is left alone for `RETRY_S` and then
    sent all that it lacks, again and again, the last time by `finish`.
    """

    def __init__(self, uri: str | None = None, *, experiment: str = "lethe", register_models: bool = True) -> None:
        self._address, self._experiment, self._register = resolve_uri(uri), experiment, register_models
        check_uri(self._address)
        check_login(self._address)
        self.uri: str | None = without_password(self._address)
        quiet_mlflow()
        self._entries = TrackedTrials()
        self._running: dict[int, TrackedTrial] = {}
        self._store: MlflowStore | None = None
        self._record: StudyRecord | None = None
        self._behind = False
        self._again_at = 0.0
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._work, name="mlflow", daemon=True).start()

    def begin(self, record: StudyRecord) -> None:
        """See `Tracker`."""
        self._record = record
        self._inbox.put(lambda: self._try(self._connect))

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """See `Tracker`."""
        entry = self._running[number] = self._entries.of(run_hash, number)
        entry.begin(number, params)
        self._post(entry)

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """See `Tracker`."""
        entry = self._running[number]
        entry.add_report(epoch, step_metrics)
        self._post(entry)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Tracker`."""
        entry = self._entries.of(trial.run, trial.number)
        entry.add_end(trial)
        self._post(entry)

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """See `Tracker`. Failures are one line of warning each: a study's results do not depend on its log."""
        answer: Future[str | None] = Future()
        self._inbox.put(lambda: self._deliver(record, folder, answer))
        self._inbox.put(None)
        return answer.result()

    def _post(self, entry: TrackedTrial) -> None:
        self._inbox.put(lambda: self._try(lambda: self._send(entry)))

    def _work(self) -> None:
        """The thread: MLflow is called here and nowhere else. Its import takes seconds, so it begins at once."""
        self._try(_load)
        while True:
            try:
                job = self._inbox.get(timeout=RETRY_S if self._behind else None)
            except Empty:
                job = partial(self._try, self._catch_up)
            if job is None:
                return
            job()

    def _try(self, call: Callable[[], object]) -> None:
        """What fails is tried again by `_catch_up`. One line when a store goes, one when it is back."""
        if self._behind:
            if time.monotonic() < self._again_at:
                return
            call = self._catch_up
        failure = attempt(call)
        if failure and not self._behind:
            log.warning("MLflow is behind and will be sent the rest when it answers: %s", failure)
        elif self._behind and not failure:
            log.warning("MLflow answers again and was sent the rest")
        self._behind, self._again_at = bool(failure), time.monotonic() + RETRY_S

    def _catch_up(self) -> None:
        check_uri(self._address)
        for entry in self._entries:
            self._send(entry)

    def _connect(self) -> MlflowStore:
        if self._store is None:
            store_type = _load()
            if self._record is None:
                raise RuntimeError("a trial was tracked before its study began")
            self._store = store_type(self._address, self._experiment, self._record, self._entries)
        return self._store

    def _send(self, entry: TrackedTrial) -> None:
        store = self._connect()
        if entry.behind:
            store.send(entry)

    def _send_repeat(self, repeat: TrialRecord) -> None:
        """A confirmation that the store may not have yet."""
        entry = self._entries.of(repeat.run, repeat.number)
        if entry.end is None:
            entry.add_end(repeat)
        self._send(entry)

    def _deliver(self, record: StudyRecord, folder: Path, answer: Future[str | None]) -> None:
        """Everything that the store still lacks. Always answers."""
        place: list[str] = []
        self._record = self._record or record
        failures = [attempt(lambda: check_uri(self._address)) or attempt(self._connect)]
        if not any(failures) and (store := self._store):
            failures = [attempt(job) for job in self._last_jobs(store, record, folder)]
            place.append(study_link(self._address, store.experiment, store.parent))
        for failure in dict.fromkeys(filter(None, failures)):
            log.warning("not everything is in MLflow: %s", failure)
        answer.set_result(place[0] if place else None)

    def _last_jobs(self, store: MlflowStore, record: StudyRecord, folder: Path) -> Iterator[Callable[[], object]]:
        entries = {trial.number: self._entries.of(trial.run, trial.number) for trial in record.trials}
        for trial in record.trials:
            entry = entries[trial.number]
            if entry.told != trial.verdict:
                entry.add_end(trial)
            yield partial(self._send, entry)
            yield partial(store.mark, entry, trial.pareto_rank, trial.on_front)
            yield partial(store.add, entry, trial)
            for repeat in trial.confirmation.runs if trial.confirmation else ():
                yield partial(self._send_repeat, repeat)
        for entry in self._entries:
            if entry not in entries.values():
                yield partial(store.abandon, entry)
        if self._register:
            from lethe.tracking.registry import Registry

            yield from Registry(store.client, record, entries).jobs()
        yield partial(store.close, record, str(folder))


def _load() -> type[MlflowStore]:
    import mlflow  # noqa: F401
    from lethe.tracking.mlflow_store import MlflowStore

    return MlflowStore


def attempt(call: Callable[[], object]) -> str | None:
    """The failure of `call` in one line. The tracker's one broad except: MLflow lets requests', SQLAlchemy's and the
    system's errors through, and none of them may end a study."""
    try:
        call()
    except Exception as error:  # noqa: BLE001
        first = next(iter(str(error).splitlines()), "")
        return f"{type(error).__name__}: {first[:300]}"
    return None
