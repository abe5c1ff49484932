"""MLflow as a study's log. The study's loop never waits for it: a thread holds the client and sends what is new."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from lethe.config.addresses import without_password
from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.tracking.address import check_uri, resolve_uri, where
from lethe.tracking.entries import Entries, Entry
from lethe.tracking.login import check_login
from lethe.tracking.quiet import quiet_mlflow

if TYPE_CHECKING:
    from lethe.tracking.store import MlflowStore

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
        self._entries = Entries()
        self._running: dict[int, Entry] = {}
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

    def _post(self, entry: Entry) -> None:
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

    def _send(self, entry: Entry) -> None:
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
            place.append(where(self._address, store.experiment, store.parent))
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

    from lethe.tracking.store import MlflowStore

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
