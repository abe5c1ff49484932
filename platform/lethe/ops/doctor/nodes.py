"""The doctor's check of every node of the cluster."""

from __future__ import annotations

from lethe.ops.doctor.checks import Check
from lethe.pool.node_checks import check_node
from lethe.pool.resources import HEAD


def node_checks() -> list[Check]:
    """One check for each living node, the head first. Needs a connection to the cluster."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: HEAD not in node["Resources"])
    return [
        Check("head" if i == 0 else f"node {i}", lambda node=node: check_node(node)) for i, node in enumerate(alive)
    ]
