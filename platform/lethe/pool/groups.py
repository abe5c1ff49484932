"""Warm worker groups: each one long-lived Ray Train run whose workers serve the mailbox."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from lethe.errors import BadInput
from lethe.pool.capacity import require, room
from lethe.pool.mailbox import Mailbox
from lethe.pool.shape import HEAD_SLIVER, Shape
from lethe.pool.watch import Watch
from lethe.pool.worker import work

log = logging.getLogger(__name__)
RECONCILE_S = 0.25
MAX_FAILURES = 20  # restarts of one group's workers, before its trainer ends and the reconciler starts another
GIVE_UP = 3


class _CpuTrainer(DataParallelTrainer):
    """`TorchTrainer` without what costs each group 4 s of a core to start: torch in the controller, whose only part is
    to introduce the workers to each other (they do it themselves, see `worker.join`), and a process for data sets."""

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if type(c).__name__ != "DatasetsCallback"]


def _trainer(shape: Shape, **arguments: Any) -> DataParallelTrainer:
    """CUDA groups are Ray's own, which also lets a node's workers see each other's devices."""
    if shape.device == "cpu":
        return _CpuTrainer(work, **arguments)
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(work, torch_config=TorchConfig(backend="nccl"), **arguments)


class Pool:
    """Keeps as many worker groups alive as the cluster fits and the queue wants.

    Groups are threads of the driver that sit in a trainer's `fit`; their controllers and workers are Ray actors.
    A group whose trainer ends unasked is started again; an idle group gives way to a queued shape that does not fit.
    """

    def __init__(
        self, folder: Path, *, recycle_after: int | None = None, max_groups: int | None = None, wait_s: float = 900.0
    ) -> None:
        """`wait_s`: how long no group at all may be there, in a cluster that has to grow first."""
        self._folder = folder
        self._recycle_after = recycle_after
        self._max_groups = max_groups
        self._names = itertools.count(1)
        self._threads: dict[str, tuple[Shape, threading.Thread]] = {}
        self._closing = threading.Event()
        self._shape: Shape | None = None
        self._failures = 0
        self._watch = Watch(wait_s)
        self.broken: str | None = None
        self._lock = threading.Lock()
        self.mailbox = ray.remote(Mailbox).options(num_cpus=0, resources=HEAD_SLIVER, max_concurrency=10_000).remote()
        self._reconciler = threading.Thread(target=self._reconcile_forever, daemon=True)
        self._reconciler.start()

    def warm(self, shape: Shape) -> int:
        """Start all the groups of this shape that fit and return how many; BadInput where not one does."""
        require(shape)
        with self._lock:
            self._shape = shape
            while self._fits(shape, self._used()):
                self._start(shape)
            return len(self._threads)

    def slots(self) -> int:
        """How many runs are worth having under way: one per group that lives or would fit, at least one."""
        with self._lock:
            used = self._used()
            while self._shape and self._fits(self._shape, used):
                used.append(self._shape)
            return max(1, len(used))

    def result(self, ref: Any) -> Any:
        """`ray.get` that gives up with BadInput once no group can be had any more."""
        while not ray.wait([ref], timeout=1.0)[0]:
            if self.broken:
                raise BadInput(f"no worker group can run: {self.broken}")
        return ray.get(ref)

    def close(self, timeout_s: float = 20.0) -> None:
        """End every group: at its next report or, after `timeout_s`, with the driver's processes."""
        self._closing.set()
        self._reconciler.join(5.0)
        deadline = time.monotonic() + timeout_s
        with suppress(ray.exceptions.RayError):  # a mailbox that died leaves nobody to tell
            ray.get(self.mailbox.close.remote())
            for _, thread in list(self._threads.values()):
                thread.join(max(0.0, deadline - time.monotonic()))
            ray.kill(self.mailbox)

    def _reconcile_forever(self) -> None:
        while not self._closing.wait(RECONCILE_S):
            try:
                status = ray.get(self.mailbox.status.remote())
                with self._lock:
                    self._reconcile(status)
            except ray.exceptions.RayActorError as error:
                self.broken = self.broken or f"the mailbox died ({error})"
                return
            except ray.exceptions.RayError as error:
                log.warning("pool: %s", error)

    def _reconcile(self, status: dict[str, Any]) -> None:
        for name in self._watch.lost(status["groups"]):
            ray.get(self.mailbox.reclaim.remote(name))
        self.broken = self.broken or self._watch.overdue(status["groups"], self._used())
        for name, (_, thread) in list(self._threads.items()):
            if not thread.is_alive():
                del self._threads[name]
                ray.get(self.mailbox.gone.remote(name))
        idle = [n for n, g in status["groups"].items() if g["idle"] and not g["dissolved"] and n in self._threads]
        for key, count in status["queued"].items():
            shape = Shape.parse(key)
            starting = sum(s == shape for n, (s, _) in self._threads.items() if n not in status["groups"])
            waiting = sum(self._threads[n][0] == shape for n in idle)
            for _ in range(count - starting - waiting):
                if not self.broken and self._fits(shape, self._used()):
                    self._start(shape)
                elif others := [n for n in idle if self._threads[n][0].key not in status["queued"]]:
                    idle.remove(others[0])
                    ray.get(self.mailbox.dissolve.remote(others[0]))

    def _used(self) -> list[Shape]:
        return [shape for shape, _ in self._threads.values()]

    def _fits(self, shape: Shape, used: list[Shape]) -> bool:
        if self._max_groups is not None and len(used) >= self._max_groups:
            return False
        return room([*used, shape])

    def _start(self, shape: Shape) -> None:
        name = f"group-{next(self._names)}"
        thread = threading.Thread(target=self._serve, args=(name, shape), daemon=True, name=name)
        self._threads[name] = (shape, thread)
        thread.start()

    def _serve(self, name: str, shape: Shape) -> None:
        trainer = _trainer(
            shape,
            train_loop_config={
                "mailbox": self.mailbox,
                "group": name,
                "shape": shape.key,
                "threads": shape.threads,
                "recycle_after": self._recycle_after,
            },
            scaling_config=ScalingConfig(
                num_workers=shape.workers, use_gpu=shape.device == "cuda", resources_per_worker=shape.per_worker()
            ),
            run_config=RunConfig(
                name=name, storage_path=str(self._folder), failure_config=FailureConfig(max_failures=MAX_FAILURES)
            ),
        )
        try:
            trainer.fit()
            self._failures = 0
        except Exception as error:
            # Ray Train wraps whatever ended its controller; the reconciler starts a new group for queued work.
            if not self._closing.is_set():
                log.warning("pool: %s ended: %s", name, error)
                self._failures += 1
                if self._failures >= GIVE_UP:
                    self.broken = f"groups ended {GIVE_UP} times in a row ({error})"
