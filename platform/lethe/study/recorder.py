"""Trials as records: Ray Tune's events to the tracker and the console, results to their run folders.

`TrialPlan` is a trial before it runs, `TrialRecord` after; `trial_record` makes the one from the other and the reports.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.pool.messages import Job, Report
from lethe.pool.run_queue import RunQueue, RunQueueClient, Steps
from lethe.records import EpochReport, FinalReport, Metrics, Scalar, TrialRecord
from lethe.search.front import mark_front
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.paths import atomic_write
from lethe.storage.replica import delete, missing_parts
from lethe.tracking.base import Tracker
from lethe.unlearning.requests import TrialReport

PLAN, QUEUE = "plan", "queue"  # keys of a Tune trial's config
REPORT = "report"  # key of a Tune result
PROGRESS_S = 1.0


@dataclass(frozen=True)
class TrialPlan:
    """A proposal made ready to run: trial `number` of the study, whose job leaves its files in `folder`.

    `claim` is the trial's name in the run queue, unlike any other of this and earlier sessions.
    """

    number: int
    params: dict[str, Scalar]
    folder: Path
    job: Job
    claim: str = ""

    @property
    def run(self) -> str:
        """The digest of the trial's run."""
        return self.job.run


def plan_of(trial: Trial) -> TrialPlan:
    """Return the plan that one of Tune's trials carries out."""
    plan = trial.config[PLAN]
    assert isinstance(plan, TrialPlan)
    return plan


def report_of(result: dict[str, Any] | None) -> Report | None:
    """Return our report in a Tune result, to which Tune adds keys of its own; None where there is none."""
    report = (result or {}).get(REPORT)
    assert report is None or isinstance(report, EpochReport | FinalReport)
    return report


def trial_record(
    number: int,
    run: str,
    params: dict[str, Scalar],
    folder: Path,
    series: Sequence[Metrics],
    final: FinalReport,
    began: float,
) -> TrialRecord:
    """Return the record of a run that ends now. `series`: the values of its epochs, the last one included.

    The record's metrics are the final report's; a run that was stopped has sent none, and keeps its last epoch's.
    """
    metrics = series[-1] if final.verdict == "stopped" and series else final.values
    return TrialRecord(
        number=number,
        run=run,
        verdict=final.verdict,
        reason=final.reason,
        params=params,
        metrics=metrics,
        series=tuple(series),
        samples=final.samples if isinstance(final, TrialReport) else (),
        audits=final.audits if isinstance(final, TrialReport) else (),
        folder=str(folder),
        began=began,
        ended=time.time(),
    )


@dataclass
class _RunningTrial:
    plan: TrialPlan
    series: list[Metrics] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    steps: Steps = 0, 0

    @property
    def params(self) -> dict[str, Scalar]:
        """The trial's parameters."""
        return self.plan.params

    def add(self, report: Report) -> bool:
        """Append the report's values to the series if they are an epoch's that was not reported before, as it may be
        by an actor that stands in for one that died. Returns whether they were."""
        epoch = report.values.get("epoch")
        if epoch is None or (self.series and epoch <= self.series[-1]["epoch"]):
            return False
        self.series.append(report.values)
        return True


class Recorder(tune.Callback):
    """Collects the study's trials. `on_change` is called after every event, with the record that ended, if one did.

    `trials` are the records by number, `running` the trials that have not ended; `why_stopped`, which a scheduler may
    replace, gives the reason for which it stopped a run.
    """

    def __init__(
        self,
        queue: RunQueueClient,
        tracker: Tracker,
        objectives: ObjectiveSpace,
        on_change: Callable[[TrialRecord | None], None],
    ) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.running: dict[int, _RunningTrial] = {}
        self._queue, self._tracker, self._objectives, self._on_change = queue, tracker, objectives, on_change
        self._lock = threading.RLock()
        self._deleted: set[Path] = set()
        self._asked: ray.ObjectRef[dict[str, Steps]] | None = None
        self._asked_at = 0.0
        self.why_stopped: Callable[[str], str] = lambda run: ""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its configuration before it starts, where trackers and locks do not belong."""
        return {}

    def began(self, plan: TrialPlan) -> None:
        """Note a trial that was proposed and will run."""
        self._deleted -= {plan.folder / CHECKPOINT, plan.folder / "model"}
        self.running[plan.number] = _RunningTrial(plan)
        self._tracker.trial_began(plan.number, plan.run, plan.params)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ask the queue every `PROGRESS_S` seconds how far the running trials are, and take its answer once it is
        there: Tune's loop, which calls this, waits for nothing."""
        if self._asked is None and time.monotonic() - self._asked_at >= PROGRESS_S:
            self._asked, self._asked_at = self._queue.call(RunQueue.progress), time.monotonic()
        elif self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            answer, self._asked = self._asked, None
            with suppress(RayError):  # a queue that died is started again
                self._progressed(ray.get(answer))

    def _progressed(self, steps: dict[str, Steps]) -> None:
        moved = False
        for entry in list(self.running.values()):
            now = steps.get(entry.plan.run, entry.steps)
            moved, entry.steps = moved or now != entry.steps, now
        if moved:
            self._on_change(None)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass a report on; record the trial if it is the last."""
        plan, report = plan_of(trial), report_of(result)
        entry = self.running.get(plan.number)
        if entry is None or report is None:
            return
        added = entry.add(report)
        # An interrupted one stays among the running, which the session's end cut off.
        ended = isinstance(report, FinalReport) and report.verdict != "interrupted"
        if added and not ended:  # the last report goes to the tracker with the end, in one call
            self._tracker.trial_reported(plan.number, report.values, int(report.values["epoch"]))
        if isinstance(report, FinalReport):
            if ended:
                self._end(plan, report)
        elif result.get("done"):  # a scheduler stopped it: on disk before Optuna is told
            self._stopped(plan)
        else:
            self._on_change(None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial that Tune ended without a report of its end."""
        plan, last = plan_of(trial), report_of(trial.last_result)
        interrupted = isinstance(last, FinalReport) and last.verdict == "interrupted"
        if plan.number in self.running and not interrupted:
            self._stopped(plan)

    def answered(self, plan: TrialPlan, stored: TrialRecord) -> None:
        """Record a proposal whose run the study already holds: the same result under a new number."""
        self._tracker.trial_began(plan.number, plan.run, plan.params)
        for values in stored.series:
            self._tracker.trial_reported(plan.number, values, int(values["epoch"]))
        self._add(stored.model_copy(update={"number": plan.number, "params": plan.params}))

    def _stopped(self, plan: TrialPlan) -> None:
        self._end(plan, FinalReport(verdict="stopped", reason=self.why_stopped(plan.run)))

    def _end(self, plan: TrialPlan, report: FinalReport) -> None:
        entry = self.running[plan.number]
        self._queue.call(RunQueue.withdraw, plan.run, plan.claim)
        record = trial_record(plan.number, plan.run, plan.params, plan.folder, entry.series, report, began=entry.began)
        if record.verdict != "lost" or read_result(plan.folder) is None:
            write_result(record)
        del self.running[plan.number]
        self._add(record)

    def take_up(self, trials: Iterable[TrialRecord]) -> None:
        """Begin with the trials that earlier sessions finished."""
        self.trials = {t.number: t for t in mark_front(tuple(trials), self._objectives)}
        self._deleted |= missing_parts(
            (Path(t.folder) for t in self.trials.values() if t.folder), (CHECKPOINT, "model")
        )
        self._prune(self.trials.values())

    def _add(self, record: TrialRecord) -> None:
        with self._lock:
            front = [n for n, t in self.trials.items() if t.on_front]
            self.trials[record.number] = record
            self.trials = {t.number: t for t in mark_front(tuple(self.trials.values()), self._objectives)}
            self._prune(self.trials[n] for n in (*front, record.number))
        self._tracker.trial_ended(self.trials[record.number])
        self._on_change(self.trials[record.number])

    def _prune(self, trials: Iterable[TrialRecord]) -> None:
        """Delete the checkpoints of these trials, which have ended, and the weights of those that are not on the front:
        a dominated trial never comes back."""
        on_front = {t.folder for t in self.trials.values() if t.on_front}
        for trial in trials:
            parts = [CHECKPOINT, *(["model"] if trial.folder not in on_front else [])]
            for path in [Path(trial.folder) / part for part in parts] if trial.folder else []:
                if path not in self._deleted:
                    delete(path)
                    self._deleted.add(path)


def write_result(record: TrialRecord) -> None:
    """Write the record to `result.json` in its folder, whole or not at all."""
    folder = Path(record.folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "result.json", record.model_dump_json(indent=1))


def read_result(folder: Path) -> TrialRecord | None:
    """Return the record that `write_result` left in `folder`; None where there is none, or one of a run that failed for
    reasons that another attempt may not meet."""
    path = folder / "result.json"
    if not path.exists():
        return None
    record = TrialRecord.model_validate_json(path.read_text()).model_copy(update={"folder": str(folder)})
    decided = record.verdict == "stopped" and record.reason  # by a rung, not by a session that ended
    return record if decided or record.verdict in ("complete", "diverged", "infeasible") else None
