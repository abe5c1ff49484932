"""MLflow as a study's tracker. The driver never waits for the store: a thread holds the client and sends the news."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from lethe.config.addresses import without_password
from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.tracking.aliases import Registered
from lethe.tracking.connection import check_login, check_uri, quiet_mlflow, resolve_uri, study_link
from lethe.tracking.mlflow_pages import run_page, study_note
from lethe.tracking.mlflow_runs import MlflowStore
from lethe.tracking.model_registry import Registry
from lethe.tracking.tracked_trials import GIVE_UP_S, TrackedTrial, TrackedTrials

log = logging.getLogger("lethe.tracking")
RETRY_S = 10.0


class MlflowTracker:
    """A `Tracker` that writes to an MLflow store.

    Methods change a `TrackedTrial` and put it into the inbox; the thread sends what the store lacks of it, so reports
    that arrive faster than the store takes them travel together. A store that failed is left alone for `RETRY_S`
    seconds and then sent all that it lacks, again and again, the last time by `finish`.
    """

    def __init__(self, uri: str | None = None, *, experiment: str = "lethe", register_models: bool = True) -> None:
        """Check the store at `uri` (default: see `resolve_uri`) and start the thread. Raises UserError, within seconds,
        where the store cannot be reached or written."""
        self._address, self._experiment, self._register = resolve_uri(uri), experiment, register_models
        check_uri(self._address)
        check_login(self._address)
        self.uri: str | None = without_password(self._address)
        quiet_mlflow()
        self._trials = TrackedTrials()
        self._running: dict[int, TrackedTrial] = {}
        self._store: MlflowStore | None = None
        self._record: StudyRecord | None = None
        self._is_behind = False
        self._retry_at = 0.0
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._run_inbox, name="mlflow", daemon=True).start()

    # Called by the driver

    def begin(self, record: StudyRecord) -> None:
        """See `Tracker`."""
        self._record = record
        self._inbox.put(lambda: self._try(self._connect))

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """See `Tracker`."""
        trial = self._running[number] = self._trials.get(run_hash, number)
        trial.begin(number, params)
        self._post(trial)

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """See `Tracker`."""
        trial = self._running[number]
        trial.add_report(epoch, step_metrics)
        self._post(trial)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Tracker`."""
        tracked = self._trials.get(trial.run, trial.number)
        tracked.add_end(trial)
        self._post(tracked)

    def register(self, record: StudyRecord) -> Registered:
        """See `Tracker`. Failures are warned about by `finish`."""
        answer: Future[Registered] = Future()
        self._inbox.put(lambda: self._register_front(record, answer))
        return answer.result()

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """See `Tracker`. Failures are one line of warning each: a study's results do not depend on its log."""
        answer: Future[str | None] = Future()
        self._inbox.put(lambda: self._deliver(record, folder, answer))
        self._inbox.put(None)
        return answer.result()

    def _post(self, trial: TrackedTrial) -> None:
        self._inbox.put(lambda: self._try(lambda: self._send(trial)))

    # Run by the thread

    def _run_inbox(self) -> None:
        """Run the inbox's jobs until it has a None. MLflow is called in this thread and nowhere else."""
        while True:
            try:
                job = self._inbox.get(timeout=RETRY_S if self._is_behind else None)
            except Empty:
                job = partial(self._try, self._catch_up)
            if job is None:
                return
            job()

    def _try(self, call: Callable[[], object]) -> None:
        """Run `call`, or while the store is behind `_catch_up` once `RETRY_S` seconds have passed. Warn with one line
        when the store fails, and with one when it answers again."""
        if self._is_behind:
            if time.monotonic() < self._retry_at:
                return
            call = self._catch_up
        failure = attempt(call)
        if failure and not self._is_behind:
            log.warning("MLflow is behind and will be sent the rest when it answers: %s", failure)
        elif self._is_behind and not failure:
            log.warning("MLflow answers again and was sent the rest")
        self._is_behind, self._retry_at = bool(failure), time.monotonic() + RETRY_S

    def _catch_up(self) -> None:
        check_uri(self._address)
        for trial in self._trials:
            self._send(trial)

    def _connect(self) -> MlflowStore:
        if self._store is None:
            _import_mlflow()
            if self._record is None:
                raise RuntimeError("a trial was tracked before its study began")
            self._store = MlflowStore(self._address, self._experiment, self._record, self._trials)
        return self._store

    def _send(self, trial: TrackedTrial) -> None:
        store = self._connect()
        if trial.is_behind:
            store.send(trial)

    def _send_confirmation(self, run: TrialRecord) -> None:
        """Send a run of a confirmation, which the store may not have yet."""
        trial = self._trials.get(run.run, run.number)
        if trial.end is None:
            trial.add_end(run)
        self._send(trial)

    def _register_front(self, record: StudyRecord, answer: Future[Registered]) -> None:
        """Send the front's runs and register their models, unless the store is behind. Always answers."""
        registered = Registered()
        if not self._is_behind and not attempt(self._connect) and (store := self._store):
            if self._register and record.front:
                registered = self._registered(record)
            found = {trial.number: self._trials.get(trial.run, trial.number).run_id for trial in record.trials}
            pages = {number: run_page(store.experiment, run) for number, run in found.items() if run}
            registered = registered._replace(pages=pages)
        answer.set_result(registered)

    def _registered(self, record: StudyRecord) -> Registered:
        store = self._connect()
        tracked = {trial.number: self._trials.get(trial.run, trial.number) for trial in record.front}
        registry = Registry(store.client, record, tracked)
        for trial in record.front:
            own = tracked[trial.number]
            if own.stored_verdict != trial.verdict:
                own.add_end(trial)
            attempt(partial(self._send, own))
        for job in registry.jobs():
            failure = attempt(job)
            if failure and not failure.startswith(FileNotFoundError.__name__):
                break  # `finish` does it again and says what fails
        versions: dict[int, str] = {}
        attempt(lambda: versions.update({trial.number: registry.address(trial) for trial in record.trials}))
        return Registered({number: address for number, address in versions.items() if address}, tuple(registry.notes))

    def _deliver(self, record: StudyRecord, folder: Path, answer: Future[str | None]) -> None:
        """Send everything that the store still lacks, and answer with the study's link, None where the store cannot be
        reached. Always answers; gives up on a store that has taken nothing for `GIVE_UP_S` seconds."""
        link = None
        self._record = self._record or record
        failures = [attempt(lambda: check_uri(self._address)) or attempt(self._connect)]
        if not any(failures) and (store := self._store):
            taken = time.monotonic()
            for job in self._last_jobs(store, record, folder):
                failures.append(attempt(job))
                taken = taken if failures[-1] else time.monotonic()
                if time.monotonic() - taken > GIVE_UP_S:
                    failures.append(f"it has taken nothing for {GIVE_UP_S:g} s, so the rest was not sent")
                    break
            link = study_link(self._address, store.experiment, record.id)
        for failure in dict.fromkeys(filter(None, failures)):
            log.warning("not everything is in MLflow: %s", failure)
        answer.set_result(link)

    def _last_jobs(self, store: MlflowStore, record: StudyRecord, folder: Path) -> Iterator[Callable[[], object]]:
        """Yield the calls that complete the study in the store; each can fail without the others."""
        tracked = {trial.number: self._trials.get(trial.run, trial.number) for trial in record.trials}
        for trial in record.trials:
            own = tracked[trial.number]
            if own.stored_verdict != trial.verdict:
                own.add_end(trial)
            yield partial(self._send, own)
            yield partial(store.mark, own, record, trial)
            yield partial(store.add_afterwards, own, trial)
            for run in trial.confirmation.runs if trial.confirmation else ():
                yield partial(self._send_confirmation, run)
        for other in self._trials:
            if other not in tracked.values():
                yield partial(store.abandon, other)
        registry = Registry(store.client, record, tracked)
        if self._register:
            yield from registry.jobs()
        yield partial(self._close, store, record, folder, registry)

    def _close(self, store: MlflowStore, record: StudyRecord, folder: Path, registry: Registry) -> None:
        """Describe the study and its front, with the versions that are registered, and end the study's run."""
        versions: dict[str, str] = {}
        if self._register and record.front:
            attempt(lambda: versions.update(registry.versions))  # a failure has been warned about by its jobs
        runs = {number: trial.run_id for number, trial in registry.tracked.items() if trial.run_id}
        for trial in record.front:
            own, version = registry.tracked[trial.number], versions.get(trial.run, "")
            store.describe_front_member(own, record, trial, version, registry.name)
        note = study_note(record, store.experiment, store.parent, runs)
        store.close(record, str(folder), note)


def _import_mlflow() -> None:
    import mlflow  # noqa: F401  # registers the parts that the client needs


def attempt(call: Callable[[], object]) -> str | None:
    """Run `call` and return its failure in one line, None where it succeeds."""
    try:
        call()
    # The tracker's one broad except: errors of requests, SQLAlchemy and the system reach through MLflow, and none of
    # them may end a study.
    except Exception as error:  # noqa: BLE001  # see above
        first = next(iter(str(error).splitlines()), "")
        return f"{type(error).__name__}: {first[:300]}"
    return None
