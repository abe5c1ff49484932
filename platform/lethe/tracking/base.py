"""The interface through which a study reports what happens to a store of runs; the null version reports to none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.tracking.aliases import Registered

if TYPE_CHECKING:
    from lethe.config.study import Tracking


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
        """Log one report of a running trial; values that are no numbers are left out."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Log a trial's end with its verdict. A trial answered from disk may end without having begun."""

    def register(self, record: StudyRecord) -> Registered:
        """Register the front's models and wait until that is done. What fails is tried again by `finish`."""

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


def open_tracker(config: Tracking) -> Tracker:
    """Return the tracker that a study asks for. Raises UserError, within seconds, where its store cannot be reached or
    written."""
    if not config.enabled:
        return NullTracker()
    from lethe.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(config.uri, experiment=config.experiment, register_models=config.register_models)
