"""Trackers beside MLflow: stores that take one run after another, written by a thread of their own."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from lethe.config.study import TrackerName, Tracking
from lethe.errors import UserError
from lethe.records import Metrics, Scalar, StudyRecord, TrialRecord
from lethe.storage.paths import home
from lethe.tracking.aliases import Registered
from lethe.tracking.tracked_trials import (
    GIVE_UP_S,
    TrackedTrial,
    TrackedTrials,
    numeric_metrics,
    unreported_metrics,
    verdict_tags,
)

log = logging.getLogger("lethe.tracking")
INSTALL: dict[TrackerName, tuple[str, str]] = {  # the package to import, and how it gets there
    "wandb": ("wandb", "pip install 'lethe[wandb]'"),
    "tensorboard": ("tensorboardX", "pip install tensorboardX"),
}


class RunWriter(Protocol):
    """One run in a store. Calls may raise anything; `end` closes the run."""

    def report(self, epoch: int, metrics: Metrics) -> None:
        """Write the metrics of an epoch."""

    def end(self, trial: TrialRecord, metrics: Metrics) -> None:
        """Write how the run ended, with `metrics` that no report had, and close it."""


OpenRun = Callable[[StudyRecord, TrackedTrial], RunWriter]


class WriterTracker:
    """A `Tracker` over a store in which `open_run(study, trial)` begins, or begins again, the run of a trial.

    The driver never waits for the store but in `finish`, and there at most `GIVE_UP_S` seconds in which the store takes
    nothing. The first failure is one warning, after which nothing more is written: MLflow is the store that is sent
    again what it missed.
    """

    uri: str | None = None

    def __init__(self, name: TrackerName, open_run: OpenRun, link: str) -> None:
        """Start the thread. `link`: where a person sees the runs. Raises UserError where the package is missing."""
        package, remedy = INSTALL[name]
        if find_spec(package) is None:
            raise UserError(f"tracking: {name} needs the package {package}: {remedy}")
        self._name, self._open_run, self._link = name, open_run, link
        self._trials, self._running = TrackedTrials(), dict[int, TrackedTrial]()
        self._writers: dict[TrackedTrial, RunWriter] = {}
        self._record: StudyRecord | None = None
        self._failed = False
        self._taken = time.monotonic()  # when the last job ended
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run_inbox, name=name, daemon=True)
        self._thread.start()

    def begin(self, record: StudyRecord) -> None:
        """See `Tracker`."""
        self._record = record

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """See `Tracker`."""
        trial = self._running[number] = self._trials.get(run_hash, number)
        trial.begin(number, params)
        self._inbox.put(lambda: self._send(trial))

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """See `Tracker`."""
        trial = self._running[number]
        trial.add_report(epoch, step_metrics)
        self._inbox.put(lambda: self._send(trial))

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Tracker`."""
        tracked = self._trials.get(trial.run, trial.number)
        tracked.add_end(trial)
        self._inbox.put(lambda: self._send(tracked))

    def register(self, record: StudyRecord) -> Registered:
        """Register nothing."""
        return Registered()

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """See `Tracker`. Trials that this session took from disk are written, too."""
        self._record = self._record or record
        for trial in record.trials:
            if self._trials.get(trial.run, trial.number).end is None:
                self.trial_ended(trial)
        self._inbox.put(None)
        self._taken = time.monotonic()
        while self._thread.is_alive() and not self._failed:
            self._thread.join(max(0.0, self._taken + GIVE_UP_S - time.monotonic()))
            if self._thread.is_alive() and time.monotonic() - self._taken >= GIVE_UP_S:
                self._fail(f"it has taken nothing for {GIVE_UP_S:g} s, so the rest was not sent")
        return None if self._failed else self._link

    def _run_inbox(self) -> None:
        while (job := self._inbox.get()) is not None:
            if self._failed:
                continue
            try:
                job()
            # A store's client may raise anything, and none of it may end a study.
            except Exception as error:  # noqa: BLE001  # see above
                reason = next(iter(str(error).splitlines()), "")[:300]
                self._fail(f"{type(error).__name__}: {reason}")
            self._taken = time.monotonic()

    def _fail(self, reason: str) -> None:
        self._failed = True
        log.warning("nothing more goes to %s: %s", self._name, reason)

    def _send(self, trial: TrackedTrial) -> None:
        """Write what the store lacks of a trial."""
        if trial.stored_verdict is not None:
            return
        if trial not in self._writers:
            assert self._record is not None
            self._writers[trial] = self._open_run(self._record, trial)
        writer, end = self._writers[trial], trial.end  # the end is read first: no report comes after it
        for epoch, report in sorted(trial.reports.items()):
            if epoch not in trial.sent_epochs:
                writer.report(epoch, report.metrics)
                trial.sent_epochs.add(epoch)
        if end is not None:
            writer.end(end, unreported_metrics(end)[1])
            trial.stored_verdict = end.verdict
            del self._writers[trial]


class TensorBoardRun:
    """A trial as a folder of events, which TensorBoard reads."""

    def __init__(self, record: StudyRecord, trial: TrackedTrial) -> None:
        """Begin the folder anew: a run that was interrupted repeats its reports."""
        from tensorboardX import SummaryWriter

        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)  # NaN of a broken model is a fact, no warning
        self._folder = tensorboard_folder() / record.id / f"trial-{trial.number:03d}"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = SummaryWriter(str(self._folder))
        self._goals = [goal.metric for goal in record.objectives]

    def report(self, epoch: int, metrics: Metrics) -> None:
        """See `RunWriter`."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()

    def end(self, trial: TrialRecord, metrics: Metrics) -> None:
        """See `RunWriter`."""
        from tensorboardX.summary import hparams

        self.report(len(trial.series), metrics)
        values = {key: trial.metrics[key] for key in self._goals if key in trial.metrics}
        # Its dashboard reads text, numbers and truth values alone.
        params = {key: str(value) if value is None else value for key, value in trial.params.items()}
        # Not `add_hparams`, which opens a second writer: a run of its own, or the same file a second time.
        for summary in hparams({**params, "verdict": trial.verdict}, values):
            self._writer.file_writer.add_summary(summary)
        self._writer.close()


class WandbRun:
    """A trial as a run of Weights & Biases, in the group of its study. Equal study and hash, equal run."""

    def __init__(self, record: StudyRecord, trial: TrackedTrial, project: str) -> None:
        """Open the run, or the one with this id."""
        import wandb

        self._run: Any = wandb.init(
            project=project,
            group=record.id,
            id=f"{record.id}-{trial.run}-{trial.number}",
            name=f"{record.id} trial-{trial.number:03d}",
            config=dict(trial.params),
            tags=[record.space],
            dir=str(home()),
            resume="allow",
            reinit="create_new",  # trials run at the same time
            # Host, user and command line stay here.
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_machine_info=True,
                host="lethe",
            ),
        )

    def report(self, epoch: int, metrics: Metrics) -> None:
        """See `RunWriter`."""
        self._run.log(metrics, step=epoch)

    def end(self, trial: TrialRecord, metrics: Metrics) -> None:
        """See `RunWriter`."""
        self._run.summary.update({**metrics, **numeric_metrics(trial.metrics), "verdict": trial.verdict})
        self._run.summary.update(verdict_tags(trial))
        self._run.finish(exit_code=0 if trial.verdict in ("complete", "stopped") else 1)


def tensorboard_folder() -> Path:
    """Return the folder of all studies' events."""
    return home() / "tensorboard"


def open_writer(name: TrackerName, config: Tracking) -> WriterTracker:
    """Return the tracker `name`, which is not MLflow. Raises UserError where its package is missing."""
    if name == "tensorboard":
        return WriterTracker(name, TensorBoardRun, f"tensorboard --logdir {tensorboard_folder()}")
    project = config.experiment
    return WriterTracker(
        name, lambda record, trial: WandbRun(record, trial, project), f"the project {project} of Weights & Biases"
    )
