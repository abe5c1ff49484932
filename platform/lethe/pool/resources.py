"""What a worker group occupies: the key by which runs and groups find each other.

What the cluster has and what it can become: nodes, and the worker groups for which they have room.

An autoscaler's limits are not to be had from Ray, so the cluster files say them in LETHE_NODES where the head starts:
"4:CPU=8,GPU=1" is up to four worker nodes of eight cores and one GPU; several kinds are separated by ";".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lethe.config.run import Engine
from lethe.errors import UserError

# Tune refuses an empty request, and a sliver of CPU would leave no whole core for the last group. Every head node
# has this resource, so bookkeeping actors live there and off preemptible nodes.
HEAD_SLIVER = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class Shape:
    """Workers of one group and what each of them holds."""

    workers: int = 1
    threads: int = 1
    device: str = "cpu"

    @classmethod
    def of(cls, engine: Engine) -> Shape:
        """The shape that a run with this engine needs."""
        return cls(engine.workers, engine.threads, engine.device)

    @classmethod
    def parse(cls, key: str) -> Shape:
        """Inverse of `key`."""
        workers, threads, device = key.split("x")
        return cls(int(workers), int(threads), device)

    @property
    def key(self) -> str:
        return f"{self.workers}x{self.threads}x{self.device}"

    def per_worker(self) -> dict[str, float]:
        """Ray resources of one worker."""
        return {"CPU": self.threads, **({"GPU": 1} if self.device == "cuda" else {})}

    def total(self) -> dict[str, float]:
        """Ray resources of the whole group."""
        return {kind: amount * self.workers for kind, amount in self.per_worker().items()}


VARIABLE = "LETHE_NODES"
HEAD = "node:__internal_head__"
Resources = dict[str, float]


def promised() -> list[Resources]:
    """The worker nodes that LETHE_NODES allows the cluster to have, none where it is not set."""
    text = os.environ.get(VARIABLE, "").strip()
    try:
        return [node for kind in text.split(";") if kind.strip() for node in _kind(kind)]
    except ValueError:
        raise UserError(f"{VARIABLE}={text}: give a number of nodes and what each has, such as 4:CPU=8,GPU=1") from None


def _kind(text: str) -> list[Resources]:
    count, _, amounts = text.partition(":")
    node = {kind.strip(): float(amount) for kind, amount in (pair.split("=") for pair in amounts.split(","))}
    return [node] * int(count)


def alive() -> list[Resources]:
    """Resources of every node that lives."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def nodes() -> list[Resources]:
    """Resources of every node that lives, and of every one that may still come."""
    here, coming = alive(), promised()
    for node in here:
        # A live worker node has taken the place of the first promised one that it can stand for.
        taken = next((p for p in coming if _covers(node, p)), None)
        if taken is not None and HEAD not in node:
            coming.remove(taken)
    return here + coming


def room(shapes: Iterable[Shape], given: list[Resources] | None = None) -> bool:
    """Whether groups of these shapes have room at the same time, each worker whole on one node (first fit)."""
    free = [dict(node) for node in (nodes() if given is None else given)]
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
    """Raises BadInput for a shape that the cluster can never hold; says what it needs and what there is."""
    given = nodes()
    if not room([shape], given):
        limits = f"can have (with {VARIABLE})" if promised() else "has"
        raise UserError(
            f"run.engine: a run needs {shape.workers} x ({shown(shape.per_worker())}), each on one node, the cluster"
            f" {limits} {', '.join(f'{n} x ({node})' for node, n in Counter(map(shown, given)).items())}:"
            f" lower engine.workers or engine.threads, or add nodes (one that grows says how far in {VARIABLE})"
        )


def shown(node: Resources) -> str:
    """The part of a node's resources that matters here: "8 CPU, 1 GPU"."""
    return ", ".join(f"{node.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU") if kind == "CPU" or node.get(kind))


def _covers(node: Resources, need: Resources) -> bool:
    return all(node.get(kind, 0) >= amount for kind, amount in need.items())
