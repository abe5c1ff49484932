"""The one interface through which a study tells the outside what happens; the null version tells nobody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lethe.records import Scalar, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from lethe.config.study import Tracking


class Tracker(Protocol):
    """A study's log, written by the driver only.

    Every method but `finish` returns at once and raises nothing: what a tracker cannot deliver, `finish` sends again
    from the record. `uri` is the store's address, None where there is no store. One tracker serves one study.
    """

    uri: str | None

    def begin(self, record: StudyRecord) -> None:
        """Open the study, or continue the one with the same id: nothing is logged twice."""

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """Trial `number` starts. An equal hash in one study is one run, whatever its number."""

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """One report of a running trial; what is not a number is left out."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """The trial's verdict. A trial answered from disk may end without having begun."""

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """Deliver everything, the report in `folder` and the front's models included; return where to look."""


class NullTracker:
    """A tracker for studies that nobody watches."""

    uri: str | None = None

    def begin(self, record: StudyRecord) -> None:
        """Nothing."""

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """Nothing."""

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """Nothing."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Nothing."""

    def finish(self, record: StudyRecord, folder: Path) -> str | None:
        """Nowhere to look."""
        return None


def open_tracker(config: Tracking) -> Tracker:
    """The tracker that a study asks for; BadInput within 2 s where its store cannot be reached or written."""
    if not config.enabled:
        return NullTracker()
    from lethe.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(config.uri, experiment=config.experiment, register_models=config.register_models)
