"""The configuration of a worker group, which the driver sends to its workers."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.pool.resources import Shape
from lethe.pool.run_queue import RunQueueClient


@dataclass(frozen=True)
class GroupConfig:
    """The configuration of a group's workers. They end after `recycle_after` runs, never where it is None; `home` is
    the driver's storage root."""

    queue: RunQueueClient
    group: str
    shape: Shape
    recycle_after: int | None
    home: str
