"""A Tune trial: hands its run to the pool and passes the reports on. Holds no model and imports no torch."""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from lethe.pool.shape import HEAD_SLIVER, Shape


class PoolTrial(tune.Trainable):
    """`config` carries `run` (its digest), `payload` and `shape`; the pool's mailbox comes with `mailbox`.

    Every report is one Tune result; asking for the next one means "continue". Stopping is told to the mailbox by the
    driver's callback, since a reused actor is neither stopped nor cleaned up by Tune.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._mailbox = config["mailbox"]
        self._run = config["run"]
        self._seen = 0
        Shape.parse(config["shape"])
        ray.get(self._mailbox.submit.remote(self._run, config["payload"], config["shape"]))

    def step(self) -> dict[str, Any]:
        report = ray.get(self._mailbox.next_report.remote(self._run, self._seen))
        self._seen += 1
        return {"report": report, "done": bool(report.get("final"))}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the truth is in the run folders."""

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: see `save_checkpoint`."""


def placed() -> tune.PlacementGroupFactory:
    """A trial's own request: a sliver of the head node, none of the cores that groups need."""
    return tune.PlacementGroupFactory([HEAD_SLIVER])
