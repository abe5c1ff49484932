"""What every rank of a warm worker group runs: take a run, work on it, report, again.

Rank 0 talks to the run queue; the other ranks follow its broadcasts. While there is no work an empty broadcast
every `IDLE_S` keeps the ranks' collective from timing out.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import torch
import torch.distributed as dist
from lethe.pool.resources import Shape
from lethe.storage.paths import home
from lethe.unlearning.outcome import classify_failure
from ray import train
from ray.train.collective import broadcast_from_rank_zero

IDLE_S = 25.0
HEARTBEAT_S = 10.0


class Stopped(Exception):
    """The trial asked the run to end, or the group has lost its lease."""


@dataclass(frozen=True)
class Ranks:
    """This process's place in its group, and how the group's processes exchange small objects."""

    rank: int
    world: int

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value on every rank, by rank."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box


RunFunction = Callable[[dict[str, Any], Callable[[dict[str, Any]], None], Ranks], dict[str, Any]]


def work(config: dict[str, Any]) -> None:
    """A Ray Train loop. `config`: queue handle, group name, shape, threads per rank, runs before the process ends,
    the driver's `home`."""
    cuda = Shape.parse(config["shape"]).device == "cuda"
    os.environ["DS_ACCELERATOR"] = "cuda" if cuda else "cpu"
    torch.set_num_threads(config["threads"])
    join()
    ranks = Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks(0, 1)
    queue = config["queue"]
    incarnation = _register(config, ranks)
    served, here = 0, str(home())
    while config["recycle_after"] is None or served < config["recycle_after"]:
        lease = None
        if ranks.rank == 0:
            lease = ray.get(queue.take.remote(config["group"], incarnation, IDLE_S))
        lease = ranks.broadcast(lease)
        if lease is None:
            continue
        if lease["kind"] == "exit":
            return
        if lease["kind"] == "register":
            incarnation = _register(config, ranks)
            continue
        if here != config["home"]:
            lease["payload"] = moved(lease["payload"], config["home"], here)
        _serve(queue, lease, ranks)
        served += 1


def moved(value: Any, there: str, here: str) -> Any:
    """A payload whose paths under `there`, the driver's storage root, are under `here`, this node's."""
    if isinstance(value, dict):
        return {key: moved(each, there, here) for key, each in value.items()}
    if isinstance(value, list):
        return [moved(each, there, here) for each in value]
    if isinstance(value, str) and value.startswith(f"{there}/"):
        return here + value.removeprefix(there)
    return value


def join() -> None:
    """Make a CPU group's workers one process group; one worker alone needs none, and CUDA groups come with theirs."""
    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if world == 1 or dist.is_initialized():
        return
    with socket.socket() as free:
        free.bind(("", 0))
        mine = f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    dist.init_process_group("gloo", init_method=broadcast_from_rank_zero(mine), rank=rank, world_size=world)


def _register(config: dict[str, Any], ranks: Ranks) -> int:
    nodes = tuple(ranks.gather(ray.get_runtime_context().get_node_id()))
    if ranks.rank:
        return 0
    return ray.get(config["queue"].register.remote(config["group"], config["shape"], nodes))


def _serve(queue: Any, lease: dict[str, Any], ranks: Ranks) -> None:
    sent = 0

    def report(values: dict[str, Any]) -> None:
        nonlocal sent
        answer = None
        if ranks.rank == 0:
            answer = ray.get(queue.report.remote(lease["lease"], sent, values))
        sent += 1
        if ranks.broadcast(answer) != "continue":
            raise Stopped

    with _Heartbeat(queue, lease["lease"], ranks.rank == 0):
        try:
            module, name = lease["payload"]["entry"].split(":")
            final = getattr(importlib.import_module(module), name)(lease["payload"], report, ranks)
        except Stopped:
            return
        except Exception as error:
            # A bug in one run must not end a group of one: it becomes that run's verdict. With peers that wait in
            # a collective there is no way on: the group dies and Ray Train restarts it.
            ray.get(queue.failed.remote(lease["lease"], *classify_failure(error, ranks.world)))
            if ranks.world > 1:
                raise
            return
        if ranks.rank == 0:
            ray.get(queue.report.remote(lease["lease"], sent, {**final, "final": True}))


class _Heartbeat:
    """Tells the run queue that this group is alive while a run keeps its main thread busy."""

    def __init__(self, queue: Any, lease: int, active: bool) -> None:
        self._queue, self._lease = queue, lease
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True) if active else None

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            self._queue.heartbeat.remote(self._lease)

    def __enter__(self) -> None:
        if self._thread:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
