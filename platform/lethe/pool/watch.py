"""What a driver sees of nodes that come late or go: groups whose node died, and groups that never came."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import ray

from lethe.pool.capacity import Resources, shown
from lethe.pool.shape import Shape

Groups = dict[str, dict[str, Any]]


class Watch:
    """Knows which nodes had died when it last looked. `wait_s`: see `overdue`."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._served = time.monotonic()
        self._dead: set[str] = set()

    def look(self) -> None:
        """Ask the cluster's control store, which has to be there."""
        self._dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}

    def lost(self, groups: Groups) -> list[str]:
        """Groups that a dead node was part of. Their trainers start them again where there is room, which may take
        minutes in a cluster that has to grow; their runs need not wait for it."""
        return [name for name, group in groups.items() if self._dead.intersection(group["nodes"])]

    def overdue(self, groups: Groups, wanted: list[Shape], nodes: list[Resources]) -> str | None:
        """The reason to give up once groups are wanted and none has been there for `wait_s`."""
        now = time.monotonic()
        if not wanted or any(group["nodes"] for group in groups.values()):
            self._served = now
        if now - self._served < self._wait_s:
            return None
        asked = ", ".join(f"{n} x ({shown(shape.total())})" for shape, n in Counter(wanted).items())
        has = ", ".join(map(shown, nodes))
        return (
            f"no worker group came up within {self._wait_s:g} s: asked for {asked}, the cluster has or may have {has};"
            " `ray status` says why"
        )
