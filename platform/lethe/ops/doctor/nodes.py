"""The doctor's check of every node of the cluster."""

from __future__ import annotations

from functools import partial

from lethe.ops.doctor.checks import Check
from lethe.pool.node_checks import check_node
from lethe.pool.resources import HEAD


def node_checks() -> list[Check]:
    """Return a check for each living node, the head first. Needs a connection to the cluster."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # ray leaves it unannotated
    alive = [node for node in nodes if node["Alive"]]
    alive.sort(key=lambda node: HEAD not in node["Resources"])
    return [Check(f"node {i}" if i else "head", partial(check_node, node)) for i, node in enumerate(alive)]
