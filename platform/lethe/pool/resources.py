"""Resources of a worker group, of the cluster, and of the cluster once it has grown.

`Shape` is what a run needs, and the key by which runs and groups find each other. An autoscaler's limits are not to be
had from Ray, so the cluster files say them in LETHE_NODES where the head starts: "4:CPU=8,GPU=1" is up to four worker
nodes of eight cores and one GPU; several kinds are separated by ";".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lethe.config.run import Engine
from lethe.errors import UserError

VARIABLE = "LETHE_NODES"
HEAD = "node:__internal_head__"  # a resource that every head node has, and no other
# Tune refuses an empty request, and a sliver of CPU would leave no whole core for the last group. With this one
# bookkeeping actors live on the head, off preemptible nodes.
HEAD_SLIVER = {HEAD: 0.001}

Resources = dict[str, float]  # Ray's amounts by kind


@dataclass(frozen=True)
class Shape:
    """The number of workers of one group and what each of them holds: cores (`threads`) and, for cuda, `gpus`, which is
    one or a share of one."""

    workers: int = 1
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    gpus: float = 1.0

    @classmethod
    def of(cls, engine: Engine, gpus_per_worker: float = 1.0) -> Shape:
        """Return the shape that a run with this engine needs."""
        gpus = gpus_per_worker if engine.device == "cuda" else 1.0
        return cls(engine.workers, engine.threads, engine.device, gpus)

    @property
    def key(self) -> str:
        """The shape in one word: workers, threads and device, such as 2x4xcuda, with a share of one as in
        1x4xcuda0.25."""
        return f"{self.workers}x{self.threads}x{self.device}" + (f"{self.gpus:g}" if self.gpus < 1 else "")

    def per_worker(self) -> dict[str, float]:
        """Return the Ray resources of one worker."""
        return {"CPU": self.threads, **({"GPU": self.gpus} if self.device == "cuda" else {})}

    def total(self) -> dict[str, float]:
        """Return the Ray resources of the whole group."""
        return {kind: amount * self.workers for kind, amount in self.per_worker().items()}


def promised() -> list[Resources]:
    """Return the resources of each worker node that LETHE_NODES allows the cluster to have; none where it is not set.

    Raises UserError for a value that cannot be read.
    """
    text = os.environ.get(VARIABLE, "").strip()
    try:
        return [node for kind in text.split(";") if kind.strip() for node in _nodes_of_kind(kind)]
    except ValueError:
        raise UserError(f"{VARIABLE}={text}: give a number of nodes and what each has, such as 4:CPU=8,GPU=1") from None


def _nodes_of_kind(text: str) -> list[Resources]:
    count, _, amounts = text.partition(":")
    node = {kind.strip(): float(amount) for kind, amount in (pair.split("=") for pair in amounts.split(","))}
    return [node] * int(count)


def alive() -> list[Resources]:
    """Return the resources of every live node."""
    return [node["Resources"] for node in cluster_nodes() if node["Alive"]]


def cluster_nodes() -> list[dict[str, Any]]:
    """Return `ray.nodes()`: the nodes that live or have died, as Ray describes them."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's, not annotated
    return nodes


def node_resources() -> list[Resources]:
    """Return the resources of every live node, and of every promised node that has not come yet."""
    living, coming = alive(), promised()
    for node in living:
        # A live worker node has taken the place of the first promised one that it can stand for.
        taken = next((p for p in coming if _covers(node, p)), None)
        if taken is not None and HEAD not in node:
            coming.remove(taken)
    return living + coming


def has_room(shapes: Iterable[Shape], nodes: list[Resources]) -> bool:
    """Return whether groups of these shapes fit on `nodes` at the same time, each worker whole on one (first fit)."""
    free = [dict(node) for node in nodes]
    for shape in shapes:
        need = shape.per_worker()
        for _ in range(shape.workers):
            place = next((node for node in free if _covers(node, need)), None)
            if place is None:
                return False
            for kind, amount in need.items():
                place[kind] -= amount
    return True


def require(shape: Shape) -> None:
    """Raise UserError unless a group of this shape fits on the cluster, now or when it has grown."""
    nodes = node_resources()
    if not has_room([shape], nodes):
        kinds = Counter(map(format_resources, nodes))
        available = ", ".join(f"{count} x ({node})" for node, count in kinds.items())
        limits = f"can have (with {VARIABLE})" if promised() else "has"
        raise UserError(
            f"run.engine: a run needs {shape.workers} x ({format_resources(shape.per_worker())}), each on one node,"
            f" the cluster {limits} {available}:"
            f" lower engine.workers or engine.threads, or add nodes (one that grows says how far in {VARIABLE})"
        )


def format_resources(node: Resources) -> str:
    """Return a node's cores and GPUs as text, such as "8 CPU, 1 GPU"."""
    return ", ".join(f"{node.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU") if kind == "CPU" or node.get(kind))


def _covers(node: Resources, need: Resources) -> bool:
    return all(node.get(kind, 0) >= amount for kind, amount in need.items())
