"""Warm worker groups: each one long-lived Ray Train run whose workers serve the run queue.

`Pool` keeps groups alive; `NodeWatch` knows those that lost a node, and when to give up waiting for nodes.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig

from lethe.errors import StudyBrokenError
from lethe.pool.event_log import EventLog, log_folder
from lethe.pool.group import GroupConfig
from lethe.pool.group_trainer import group_trainer
from lethe.pool.messages import EntryPoint, GroupStatus, Job, QueueStatus, Report
from lethe.pool.resources import (
    HEAD,
    Resources,
    Shape,
    cluster_nodes,
    format_resources,
    has_room,
    node_resources,
    require,
)
from lethe.pool.run_queue import QueuedRun, RunQueue, RunQueueClient
from lethe.records import FinalReport
from lethe.storage.paths import home
from lethe.unlearning.requests import Request

log = logging.getLogger(__name__)
RECONCILE_S = 0.25
ANSWER_S = 5.0  # the queue answers in milliseconds; while it starts again, or the machine is busy, it may not
SILENCE_S = 120.0  # of the queue, before it counts as lost: it takes seconds to start
LOOK_S = 1.0  # between two looks at what the cluster holds
MAX_MISSES = 12  # looks in a row at a control store that does not answer, before the cluster counts as lost
MAX_FAILURES = 3  # restarts of one group's workers, before its trainer ends and the reconciler starts another
MAX_FAILED_STARTS = 4  # groups in a row that ended before their workers were there, before the pool is broken


class Pool:
    """Keeps as many worker groups alive as the cluster fits and the queue has use for.

    Groups are threads of the driver that sit in a trainer's `fit`; their workers are Ray actors.
    A group whose trainer ends unasked is started again; an idle group gives way to a queued shape that does not fit.

    `broken` is the reason why no run can go on, None while runs can; `lost` is True once the queue is gone, too.
    """

    def __init__(
        self, folder: Path, *, recycle_after: int | None = None, max_groups: int | None = None, wait_s: float = 900.0
    ) -> None:
        """Start the queue. `folder` is for Ray Train's files. Groups end after `recycle_after` runs, and there are at
        most `max_groups` of them (None: no limit). The pool is broken once it has had no group at all for `wait_s`
        seconds, in which a cluster may grow."""
        self._folder = folder
        self._recycle_after = recycle_after
        self._max_groups = max_groups
        self._names = itertools.count(1)
        self._threads: dict[str, tuple[Shape, threading.Thread]] = {}
        self._closing = threading.Event()
        self._shape: Shape | None = None
        self._errors: dict[str, str] = {}  # of trainers that ended, by group
        self._failures = 0  # groups in a row that ended before their workers were there
        self._watch = NodeWatch(wait_s)
        self._stop_reason: str | None = None
        self.broken: str | None = None
        self.lost = False
        self._unresponsive = False  # the cluster's control store does not answer: Ray's calls would wait for it
        self._lock = threading.Lock()
        self._nodes = node_resources()
        self._log = EventLog("driver")
        self._log_folder: str | None = None
        self.queue = RunQueueClient.start()
        self._control_store = ray.get_runtime_context().gcs_address
        self._reconciler = threading.Thread(target=self._reconcile_forever, daemon=True)
        self._reconciler.start()
        threading.Thread(target=self._probe_forever, daemon=True).start()

    def log_to(self, study: Path) -> None:
        """Write the event log, if it is on, to the study's folder `study`."""
        self._log_folder = log_folder(study)
        self._log.write_to(self._log_folder)

    def warm(self, shape: Shape) -> int:
        """Start as many groups of this shape as fit and return how many groups there are. Raises UserError where none
        fits."""
        require(shape)
        with self._lock:
            self._shape = shape
            while self._fits(shape, self._used()):
                self._start(shape)
            return len(self._threads)

    def slots(self) -> int:
        """Return the number of runs that can go on at once: one per group that lives or would fit, at least 1."""
        with self._lock:
            used = self._used()
            while self._shape and self._fits(self._shape, used):
                used.append(self._shape)
            return max(1, len(used))

    def submit(self, run: str, entry: EntryPoint, request: Request, shape: Shape) -> QueuedRun:
        """Queue the run that calls `entry` with `request` and return it, for `result`."""
        return QueuedRun(self.queue, Job.of(run, entry, request, shape, self._log_folder), run)

    def result(self, run: QueuedRun) -> FinalReport:
        """Return the report of a run that sends only one, once it has ended. Raises StudyBrokenError once no group can
        be had any more."""
        report = run.report(0, self._get)
        assert isinstance(report, FinalReport), "only for entry points without reports of epochs"
        if report.verdict == "interrupted":
            raise StudyBrokenError(report.reason)
        return report

    def _get(self, reference: ray.ObjectRef[Report | None]) -> Report | None:
        while not ray.wait([reference], timeout=1.0)[0]:
            if self.broken:
                raise StudyBrokenError(self.broken)
        return ray.get(reference)

    def abandon(self, reason: str) -> None:
        """Interrupt every run for those who wait for it. Only leaves word, so that a signal handler may call it."""
        self._stop_reason = self._stop_reason or reason

    @property
    def ended(self) -> str | None:
        """The reason why no run goes on: the pool is broken, or was asked to abandon them."""
        return self.broken or self._stop_reason

    def close(self, timeout_s: float = 20.0) -> None:
        """End every group: at its next report or, after `timeout_s`, with the driver's processes."""
        self._log("pool closes")
        self._closing.set()
        self._reconciler.join(5.0)
        deadline = time.monotonic() + timeout_s
        if self.lost:
            return
        with suppress(ray.exceptions.RayError):  # a queue that died leaves nobody to tell
            ray.get(self.queue.call(RunQueue.close), timeout=timeout_s)
            for _, thread in list(self._threads.values()):
                thread.join(max(0.0, deadline - time.monotonic()))
            self.queue.kill()

    @property
    def in_use(self) -> bool:
        """Return whether threads of the pool, which `close` does not wait for for ever, may still call Ray."""
        return any(thread.is_alive() for thread in (self._reconciler, *(t for _, t in list(self._threads.values()))))

    # Is the cluster there? Threads

    def _probe_forever(self) -> None:
        """Look whether the control store answers, until the pool closes. Calls nothing of Ray's, which would wait."""
        misses = 0
        while not self._closing.wait(LOOK_S):
            misses = 0 if _answers(self._control_store) else misses + 1
            self._unresponsive = misses > 0
            if misses:
                self._log("control store does not answer", misses=misses)
            if misses == MAX_MISSES:
                return self._declare_lost("the Ray cluster is gone")

    def _reconcile_forever(self) -> None:
        status, look_at, answered = self.queue.call(RunQueue.status), 0.0, time.monotonic()
        while not self._closing.wait(RECONCILE_S) and not self.lost:
            if self._unresponsive:
                continue
            try:
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + LOOK_S
                    self._nodes = node_resources()
                    self._watch.refresh()
                now = ray.get(status, timeout=ANSWER_S)
                answered = time.monotonic()
                with self._lock:
                    self._reconcile(now)
                status = self.queue.call(RunQueue.status)
            except ray.exceptions.GetTimeoutError:
                if not self._unresponsive and not _head_lives():
                    return self._declare_lost("the head of the Ray cluster is gone")
                if time.monotonic() - answered > SILENCE_S:
                    return self._declare_lost(f"Ray's first actor, the run queue, has not answered for {SILENCE_S:g} s")
            except ray.exceptions.ActorDiedError as error:
                return self._declare_lost(f"the pool's run queue is gone for good ({_first_sentence(error)})")
            except ray.exceptions.RayError as error:
                log.warning("pool: %s", _first_sentence(error))
                status = self.queue.call(RunQueue.status)

    def _declare_lost(self, reason: str) -> None:
        self._log("cluster or queue lost")
        self.broken = self.broken or reason
        self.lost = True

    # Groups and what the queue holds

    def _reconcile(self, status: QueueStatus) -> None:
        self._reap(status.groups)
        for name in self._watch.groups_on_dead_nodes(status.groups):
            self._log("node lost", group=name)
            self.queue.call(RunQueue.reclaim, name)
        if self.ended and not status.abandoned:
            self.queue.call(RunQueue.abandon, self.ended)
        if not self.ended:
            self.broken = status.abandoned or self._watch.overdue(status.groups, self._used(), self._nodes)
        idle = [n for n, g in status.groups.items() if g.idle and not g.dissolved and n in self._threads]
        for shape, count in status.queued.items():
            starting = sum(s == shape for n, (s, _) in self._threads.items() if n not in status.groups)
            waiting = sum(self._threads[n][0] == shape for n in idle)
            for _ in range(count - starting - waiting):
                if not self.broken and self._fits(shape, self._used()):
                    self._start(shape)
                elif others := [n for n in idle if self._threads[n][0] not in status.queued]:
                    idle.remove(others[0])
                    self._log("group dissolved", group=others[0])
                    self.queue.call(RunQueue.dissolve, others[0])

    def _reap(self, registered: Collection[str]) -> None:
        """Drop groups that have ended; their runs go back to the queue. Sets `broken` where too many in a row ended
        before they were among the `registered`."""
        for name, (_, thread) in list(self._threads.items()):
            if thread.is_alive():
                continue
            del self._threads[name]
            self.queue.call(RunQueue.deregister, name)
            reason = self._errors.pop(name, None)
            self._log("group ended", group=name, failed=int(reason is not None))
            self._failures = self._failures + 1 if reason and name not in registered else 0
            if self._failures >= MAX_FAILED_STARTS:
                self.broken = (
                    self.broken or f"{MAX_FAILED_STARTS} worker groups in a row ended before they began: {reason}"
                )

    def _used(self) -> list[Shape]:
        return [shape for shape, _ in self._threads.values()]

    def _fits(self, shape: Shape, used: list[Shape]) -> bool:
        if self._max_groups is not None and len(used) >= self._max_groups:
            return False
        return has_room([*used, shape], self._nodes)

    def _start(self, shape: Shape) -> None:
        name = f"group-{next(self._names)}"
        self._log("group starts", group=name, shape=shape.key)
        thread = threading.Thread(target=self._serve, args=(name, shape), daemon=True, name=name)
        self._threads[name] = (shape, thread)
        thread.start()

    def _title(self, name: str) -> str:
        """Return a group's name in the cluster, unlike any of another session."""
        return f"{self._folder.name}-{name}."

    def _serve(self, name: str, shape: Shape) -> None:
        trainer = group_trainer(
            shape.device,
            train_loop_config={"group": GroupConfig(self.queue, name, shape, self._recycle_after, str(home()))},
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
        # Ray Train wraps whatever ended its controller; the reconciler starts a new group for queued work.
        except Exception as error:  # noqa: BLE001  # see above
            if not self._closing.is_set():
                log.warning("pool: %s ended: %s", name, _first_sentence(error))
                self._errors[name] = _first_sentence(error)


class NodeWatch:
    """The nodes that had died at the last `refresh`, and the time since a group was there (see `overdue`)."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._served = time.monotonic()
        self._dead: set[str] = set()

    def refresh(self) -> None:
        """Ask the cluster's control store, which has to answer, which nodes have died."""
        self._dead = {node["NodeID"] for node in cluster_nodes() if not node["Alive"]}

    def groups_on_dead_nodes(self, groups: Mapping[str, GroupStatus]) -> list[str]:
        """Return the names of groups that a dead node was part of. Their trainers start them again where there is room,
        which may take minutes in a cluster that has to grow; their runs need not wait for it."""
        return [name for name, group in groups.items() if self._dead.intersection(group.nodes)]

    def overdue(self, groups: Mapping[str, GroupStatus], started: list[Shape], nodes: list[Resources]) -> str | None:
        """Return the reason to give up once groups were `started` and none has been there for `wait_s`; else None."""
        now = time.monotonic()
        if not started or any(group.nodes for group in groups.values()):
            self._served = now
        if now - self._served < self._wait_s:
            return None
        asked = ", ".join(f"{n} x ({format_resources(shape.total())})" for shape, n in Counter(started).items())
        has = ", ".join(map(format_resources, nodes))
        return (
            f"no worker group came up within {self._wait_s:g} s: asked for {asked}, the cluster has or may have {has};"
            " `ray status` says why"
        )


def _answers(address: str) -> bool:
    """Return whether a TCP connection to `address` (host:port) can be made."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def _head_lives() -> bool:
    return any(node["Alive"] and HEAD in node["Resources"] for node in cluster_nodes())


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error's last line: Ray's errors carry tracebacks and advice around it."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return last.strip().split(". ")[0][:200]
