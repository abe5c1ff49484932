"""The interface through which a study reports what happens to a store of runs; the null version reports to none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.tracking.aliases import Registered

if TYPE_CHECKING:
    from lethe.config.study import TrackerName, Tracking


class Tracker(Protocol):
    """A study's log, written by the driver only. One tracker serves one study.

    Every method but `register` and `finish` returns at once, and none raises: what a tracker cannot deliver, `finish`
    sends again from the record. `uri` is the store's address without a password, None where there is no store.
    """

    uri: str | None

    def begin(self, record: StudyRecord) -> None:
        """Open the study, or continue the one with the same id: nothing is logged twice."""

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """Log that trial `number` starts. An equal hash in one study is one run, whatever its number."""

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """Log one report of a running trial; values that are no numbers are left out. Its last comes with its end."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Log a trial's end with its verdict, and the reports that are not logged yet. A trial answered from disk may
        end without having begun."""

    def register(self, record: StudyRecord) -> Registered:
        """Register the front's models and wait until that is done; return them, and the pages of the runs. What fails
        is tried again by `finish`."""

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """Deliver everything, the report in `folder` and the front's models included. Return a link to the study's
        runs, None where there is no store or it cannot be reached."""


class NullTracker:
    """A tracker that logs nothing."""

    uri: str | None = None

    def begin(self, record: StudyRecord) -> None:
        """Do nothing."""

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """Do nothing."""

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """Do nothing."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Do nothing."""

    def register(self, record: StudyRecord) -> Registered:
        """Register nothing."""
        return Registered()

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """Return None: there is no store."""
        return None


class TrackerGroup:
    """Several trackers as one. `uri` is the first one's, and `finish` returns the first link that there is."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)
        self.uri = self._trackers[0].uri

    def begin(self, record: StudyRecord) -> None:
        """See `Tracker`."""
        for tracker in self._trackers:
            tracker.begin(record)

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """See `Tracker`."""
        for tracker in self._trackers:
            tracker.trial_began(number, run_hash, params)

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """See `Tracker`."""
        for tracker in self._trackers:
            tracker.trial_reported(number, step_metrics, epoch)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Tracker`."""
        for tracker in self._trackers:
            tracker.trial_ended(trial)

    def register(self, record: StudyRecord) -> Registered:
        """Register with the first tracker: MLflow alone has a registry."""
        return self._trackers[0].register(record)

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """See `Tracker`."""
        links = [tracker.finish(record, folder) for tracker in self._trackers]
        return next(filter(None, links), None)


def open_tracker(config: Tracking) -> Tracker:
    """Return the tracker that a study asks for. Raises UserError, within seconds, where a package is missing, or
    MLflow's store cannot be reached or written."""
    if not config.enabled:
        return NullTracker()
    # MLflow first: its address is the study's, and its link the one that is printed.
    names = sorted(config.to, key=lambda name: name != "mlflow")
    trackers = [_open(name, config) for name in names]
    return trackers[0] if len(trackers) == 1 else TrackerGroup(trackers)


def _open(name: TrackerName, config: Tracking) -> Tracker:
    if name == "mlflow":
        from lethe.tracking.mlflow_tracker import MlflowTracker

        return MlflowTracker(config.uri, experiment=config.experiment, register_models=config.register_models)
    from lethe.tracking.run_writers import open_writer

    return open_writer(name, config)
