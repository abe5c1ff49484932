"""What a driver sees of nodes that come late or go: groups whose node died, and groups that never came."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import ray

from lethe.pool.capacity import alive, nodes, shown
from lethe.pool.shape import Shape

LOOK_S = 1.0
Groups = dict[str, dict[str, Any]]


class Watch:
    """Looks at the cluster's nodes at most once in `LOOK_S`. `wait_s`: see `overdue`."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._served = self._looked = time.monotonic()

    def lost(self, groups: Groups) -> list[str]:
        """Groups that a dead node was part of. Their trainers start them again where there is room, which may take
        minutes in a cluster that has to grow; their runs need not wait for it."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return []
        self._looked = now
        dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        return [name for name, group in groups.items() if dead.intersection(group["nodes"])]

    def overdue(self, groups: Groups, wanted: list[Shape]) -> str | None:
        """The reason to give up once groups are wanted and none has been there for `wait_s`."""
        now = time.monotonic()
        if not wanted or any(group["nodes"] for group in groups.values()):
            self._served = now
        if now - self._served < self._wait_s:
            return None
        asked = ", ".join(f"{n} x ({shown(shape.total())})" for shape, n in Counter(wanted).items())
        has = ", ".join(map(shown, alive()))
        return (
            f"none came up within {self._wait_s:g} s: asked for {asked}, the cluster has {has}"
            f" and may have {len(nodes())} nodes; `ray status` says why"
        )
