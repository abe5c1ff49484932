"""A Tune trial: hands its run to the pool and passes the reports on. Holds no model and imports no torch."""

from __future__ import annotations

from typing import Any

from ray import tune

from lethe.pool.request import Request
from lethe.pool.shape import HEAD_SLIVER


class PoolTrial(tune.Trainable):
    """`config` carries `run` (its digest), `payload` and `shape`; `mailbox`, the pool's; `claim`, the trial's own name.

    Every report is one Tune result; asking for the next one means "continue". Stopping is told to the mailbox by the
    driver's callback, since a reused actor is neither stopped nor cleaned up by Tune. An actor that stands in for
    one that died passes the reports on from the first.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._request = Request(*(config[key] for key in ("mailbox", "run", "payload", "shape", "claim")))
        self._seen = 0

    def step(self) -> dict[str, Any]:
        report = self._request.report(self._seen)
        self._seen += 1
        return {"report": report, "done": bool(report.get("final"))}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the truth is in the run folders."""

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: see `save_checkpoint`."""


def placed() -> tune.PlacementGroupFactory:
    """A trial's own request: a sliver of the head node, none of the cores that groups need."""
    return tune.PlacementGroupFactory([HEAD_SLIVER])
