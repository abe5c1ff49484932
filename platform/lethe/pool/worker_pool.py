"""Placement groups of worker groups: asked for once, and named, since a killed controller's have to be freed.

For the second Ray Train has a detached actor per group that asks the dashboard every second whether the controller
lives. On a machine with several clusters it does not find its own and ends without a word; and it is a process.

What a driver sees of nodes that come late or go: groups whose node died, and groups that never came.

Warm worker groups: each one long-lived Ray Train run whose workers serve the run queue.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from lethe.errors import StudyBrokenError
from lethe.pool.jobs import QueuedRun
from lethe.pool.resources import HEAD_SLIVER, Resources, Shape, nodes, require, room, shown
from lethe.pool.run_queue import ReportPayload, RunQueue
from lethe.pool.worker import work
from lethe.storage.paths import home
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util import get_placement_group, placement_group_table, remove_placement_group


class AskedOnce(FixedScalingPolicy):
    """The autoscaler sees a placement group that waits. Train would tell it again through an actor, which takes a
    second and a half to start and holds nodes for three minutes after they were needed."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing."""


class Named(WorkerGroupCallback):
    """In a controller: its placement groups get names that begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Around the making of the workers' placement group."""
        named = partial(worker_group.placement_group, name=f"{self._prefix}{secrets.token_hex(4)}")
        with patch.object(worker_group, "placement_group", named):
            yield


def free(prefix: str) -> None:
    """Remove this job's placement groups of that name; whatever still runs in them ends."""
    for found in placement_group_table().values():
        if found["name"].startswith(prefix) and found["state"] != "REMOVED":
            try:
                remove_placement_group(get_placement_group(found["name"]))
            except ValueError:  # removed meanwhile
                continue


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


log = logging.getLogger(__name__)
RECONCILE_S = 0.25
ANSWER_S = 5.0  # the run queue answers in milliseconds; while it starts again, or the machine is busy, it may not
LOOK_S = 1.0  # between two looks at what the cluster holds
PATIENCE = 12  # looks in a row at a control store where nobody listens
MAX_FAILURES = 3  # restarts of one group's workers, before its trainer ends and the reconciler starts another
GIVE_UP = 4  # groups in a row that ended before their workers were there


# Callbacks that Ray Train gives every controller and a group has no use for: data sets and the freeing of placement
# groups (see `placement`) are a process each.
UNWANTED = ("DatasetsCallback", "PlacementGroupCleanerCallback")


class _Lean:
    """What makes a trainer ours."""

    def _create_default_callbacks(self) -> list[Any]:
        kept = [c for c in super()._create_default_callbacks() if type(c).__name__ not in UNWANTED]  # type: ignore[misc]
        return [*kept, Named(self.run_config.name)]  # type: ignore[attr-defined]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        policy = AskedOnce(self.scaling_config)  # type: ignore[attr-defined]
        return super()._initialize_and_run_controller(**{**given, "scaling_policy": policy})  # type: ignore[misc]


class _CpuTrainer(_Lean, DataParallelTrainer):
    """`TorchTrainer` without what costs each group 4 s of a core to start: torch in the controller, whose only part is
    to introduce the workers to each other (they do it themselves, see `worker.join`)."""


def _trainer(shape: Shape, **arguments: Any) -> DataParallelTrainer:
    """CUDA groups are Ray's own, which also lets a node's workers see each other's devices."""
    if shape.device == "cpu":
        return _CpuTrainer(work, **arguments)
    from ray.train.torch import TorchConfig, TorchTrainer

    class _CudaTrainer(_Lean, TorchTrainer):
        """As `TorchTrainer`."""

    return _CudaTrainer(work, torch_config=TorchConfig(backend="nccl"), **arguments)


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
        self._ended: dict[str, str] = {}
        self._failures = 0
        self._watch = Watch(wait_s)
        self._stop_reason: str | None = None
        self.broken: str | None = None  # why no run can go on
        self.lost = False  # even the run queue is gone: nobody can be told
        self._unresponsive = False  # the cluster's control store does not answer: Ray's calls would wait for it
        self._lock = threading.Lock()
        self._nodes = nodes()
        # Calls that a dying queue left open are made again once it is back; its rules allow for repetition.
        self.queue = (
            ray.remote(RunQueue)
            .options(num_cpus=0, resources=HEAD_SLIVER, max_concurrency=10_000, max_restarts=-1, max_task_retries=-1)
            .remote()
        )
        self._control_store = ray.get_runtime_context().gcs_address
        self._reconciler = threading.Thread(target=self._reconcile_forever, daemon=True)
        self._reconciler.start()
        threading.Thread(target=self._listen_forever, daemon=True).start()

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

    def submit(self, run: str, payload: dict[str, Any], shape: Shape) -> QueuedRun:
        """Queue a run; `result` waits for it."""
        return QueuedRun(self.queue, run, payload, shape.key, run)

    def result(self, request: QueuedRun) -> ReportPayload:
        """The only report of a run. Raises Broken once no group can be had any more."""
        report = request.report(0, self._get)
        if report["verdict"] == "interrupted":
            raise StudyBrokenError(report["reason"])
        return report

    def _get(self, ref: Any) -> Any:
        while not ray.wait([ref], timeout=1.0)[0]:
            if self.broken:
                raise StudyBrokenError(self.broken)
        return ray.get(ref)

    def abandon(self, reason: str) -> None:
        """Interrupt every run for those who wait for it. Only leaves word, so that a signal handler may call it."""
        self._stop_reason = self._wish or reason

    @property
    def ended(self) -> str | None:
        """Why no run goes on: the pool is broken, or was asked to abandon them."""
        return self.broken or self._stop_reason

    def close(self, timeout_s: float = 20.0) -> None:
        """End every group: at its next report or, after `timeout_s`, with the driver's processes."""
        self._closing.set()
        self._reconciler.join(5.0)
        deadline = time.monotonic() + timeout_s
        if self.lost:
            return
        with suppress(ray.exceptions.RayError):  # a run queue that died leaves nobody to tell
            ray.get(self.queue.close.remote(), timeout=timeout_s)
            for _, thread in list(self._threads.values()):
                thread.join(max(0.0, deadline - time.monotonic()))
            ray.kill(self.queue)

    def _listen_forever(self) -> None:
        """Whether the cluster lives, by a thread that calls nothing of Ray's and so never waits for it."""
        misses = 0
        while not self._closing.wait(LOOK_S):
            misses = 0 if _answers(self._control_store) else misses + 1
            self._unresponsive = misses > 0
            if misses == PATIENCE:
                return self._declare_lost("the Ray cluster is gone")

    def _reconcile_forever(self) -> None:
        asked, look_at = self.queue.status.remote(), 0.0
        while not self._closing.wait(RECONCILE_S) and not self.lost:
            if self._unresponsive:
                continue
            try:
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + LOOK_S
                    self._nodes = nodes()
                    self._watch.look()
                status = ray.get(asked, timeout=ANSWER_S)
                with self._lock:
                    self._reconcile(status)
                asked = self.queue.status.remote()
            except ray.exceptions.GetTimeoutError:
                if not self._unresponsive and not _head_lives():
                    return self._declare_lost("the head of the Ray cluster is gone")
            except ray.exceptions.ActorDiedError as error:
                return self._declare_lost(f"the pool's run queue is gone for good ({_line(error)})")
            except ray.exceptions.RayError as error:
                log.warning("pool: %s", _line(error))
                asked = self.queue.status.remote()

    def _declare_lost(self, reason: str) -> None:
        self.broken = self.broken or reason
        self.lost = True

    def _reconcile(self, status: dict[str, Any]) -> None:
        self._reap(status["groups"])
        for name in self._watch.lost(status["groups"]):
            self.queue.reclaim.remote(name)
        if self.ended and not status["abandoned"]:
            self.queue.abandon.remote(self.ended)
        if not self.ended:
            self.broken = status["abandoned"] or self._watch.overdue(status["groups"], self._used(), self._nodes)
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
                    self.queue.dissolve.remote(others[0])

    def _reap(self, registered: Collection[str]) -> None:
        """Groups that have ended give their runs back. None that its workers had not reached may end too often."""
        for name, (_, thread) in list(self._threads.items()):
            if thread.is_alive():
                continue
            del self._threads[name]
            self.queue.gone.remote(name)
            reason = self._ended.pop(name, None)
            if reason:
                free(self._title(name))
            self._failures = self._failures + 1 if reason and name not in registered else 0
            if self._failures >= GIVE_UP:
                self.broken = self.broken or f"{GIVE_UP} worker groups in a row ended before they began: {reason}"

    def _used(self) -> list[Shape]:
        return [shape for shape, _ in self._threads.values()]

    def _fits(self, shape: Shape, used: list[Shape]) -> bool:
        if self._max_groups is not None and len(used) >= self._max_groups:
            return False
        return room([*used, shape], self._nodes)

    def _start(self, shape: Shape) -> None:
        name = f"group-{next(self._names)}"
        thread = threading.Thread(target=self._serve, args=(name, shape), daemon=True, name=name)
        self._threads[name] = (shape, thread)
        thread.start()

    def _title(self, name: str) -> str:
        """Unlike any of another session on the cluster."""
        return f"{self._folder.name}-{name}."

    def _serve(self, name: str, shape: Shape) -> None:
        trainer = _trainer(
            shape,
            train_loop_config={
                "queue": self.queue,
                "group": name,
                "shape": shape.key,
                "threads": shape.threads,
                "recycle_after": self._recycle_after,
                "home": str(home()),
            },
            scaling_config=ScalingConfig(
                num_workers=shape.workers, use_gpu=shape.device == "cuda", resources_per_worker=shape.per_worker()
            ),
            run_config=RunConfig(
                name=self._title(name),
                storage_path=str(self._folder),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            # Ray Train wraps whatever ended its controller; the reconciler starts a new group for queued work.
            if not self._closing.is_set():
                log.warning("pool: %s ended: %s", name, _line(error))
                self._ended[name] = _line(error)


def _answers(address: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def _head_lives() -> bool:
    return any(node["Alive"] and "node:__internal_head__" in node["Resources"] for node in ray.nodes())


def _line(error: Exception) -> str:
    """Ray's errors carry tracebacks and advice; the first sentence of the last line says what happened."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return last.strip().split(". ")[0][:200]
