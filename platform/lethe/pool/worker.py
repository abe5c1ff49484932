"""The loop that every rank of a warm worker group runs: take a job, work on it, report, again.

Rank 0 talks to the run queue; the other ranks follow its broadcasts. While there is no work an empty broadcast
every `IDLE_S` keeps the ranks' collective from timing out.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
import torch
import torch.distributed as dist
from ray import train
from ray.train.collective import broadcast_from_rank_zero
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch defines it and leaves it out of __all__

from lethe.pool.event_log import EventLog
from lethe.pool.group import GroupConfig
from lethe.pool.messages import Answer, Instruction, Job, RunLease, relocate_paths
from lethe.pool.run_queue import RunQueue, RunQueueClient
from lethe.records import EpochReport, FinalReport, Metrics
from lethe.storage.paths import home
from lethe.unlearning.context import without_row_text
from lethe.unlearning.outcome import classify_failure
from lethe.unlearning.requests import Request

IDLE_S = 25.0
HEARTBEAT_S = 10.0
PROGRESS_S = 1.0  # a step that was taken is reported as late as this

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818  # an answer of the queue, not an error
    """The trial asked the run to end, or the group has lost its lease."""


@dataclass(frozen=True)
class Ranks:
    """This process's place in its group, and how the group's processes exchange small objects. `progressed` takes the
    steps of the present run that are done, and all of them."""

    rank: int
    world: int
    progressed: Callable[[int, int], None] = lambda *_: None

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank; the others' is ignored."""
        box: list[Any] = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[no-any-return]  # torch has unpickled it: rank 0's T

    def gather(self, value: T) -> list[T]:
        """Return every rank's value on every rank, by rank."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box


def serve(group: GroupConfig) -> None:
    """Join the group's other workers and serve the queue until it says EXIT."""
    os.environ["DS_ACCELERATOR"] = "cuda" if group.shape.device == "cuda" else "cpu"
    torch.set_num_threads(group.shape.threads)
    if group.shape.device == "cuda" and group.shape.gpus < 1:
        # A run that wants more than its share is out of memory itself, instead of a neighbour on the same GPU.
        torch.cuda.set_per_process_memory_fraction(group.shape.gpus)
    join(group.shape.device)
    ranks = Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks(0, 1)
    _Worker(group, ranks).serve()


def join(device: str) -> None:
    """Make a group's workers one process group; one worker alone needs none."""
    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if world == 1:
        return
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    store = _rendezvous(rank, world, on_one_machine=context.get_local_world_size() == world)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=world)


def _rendezvous(rank: int, world: int, on_one_machine: bool) -> TCPStore:
    """Return the store by which the ranks find each other. Torch's own listens on all addresses of rank 0's machine;
    this one on loopback, or else on the node's address, and so do the ranks' connections."""
    listener, address = None, None
    if on_one_machine and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if rank == 0:
        host = "127.0.0.1" if on_one_machine else ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray's
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        address = listener.getsockname()[:2]
    host, port = broadcast_from_rank_zero(address)
    if listener is None:
        return TCPStore(host, port, world, is_master=False)
    return TCPStore(host, port, world, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


class _Worker:
    """One rank of a group, from its registration to its end."""

    def __init__(self, config: GroupConfig, ranks: Ranks) -> None:
        self._config, self._ranks, self._queue = config, ranks, config.queue
        self._home = str(home())
        self._log = EventLog(f"{config.group}-rank-{ranks.rank}")
        self._incarnation = 0

    def serve(self) -> None:
        """Register, then run jobs until the queue or `recycle_after` ends this process."""
        self._register()
        served, limit = 0, self._config.recycle_after
        while limit is None or served < limit:
            assignment = self._take()
            if isinstance(assignment, RunLease):
                self._run(assignment)
                served += 1
            elif assignment is Instruction.REGISTER:
                self._register()
            elif assignment is Instruction.EXIT:
                self._log("exit")
                return
        self._log("exit: recycled")

    def _register(self) -> None:
        nodes = tuple(self._ranks.gather(ray.get_runtime_context().get_node_id()))
        if self._ranks.rank == 0:
            self._incarnation = ray.get(
                self._queue.call(RunQueue.register, self._config.group, self._config.shape, nodes)
            )
        self._log("registered", pid=os.getpid(), world=self._ranks.world)

    def _take(self) -> RunLease | Instruction:
        assignment: RunLease | Instruction = Instruction.WAIT  # ignored on ranks other than 0
        if self._ranks.rank == 0:
            assignment = ray.get(self._queue.call(RunQueue.take, self._config.group, self._incarnation, IDLE_S))
        return self._ranks.broadcast(assignment)

    def _localised(self, job: Job) -> Job:
        """Return `job` with this node's storage root in place of the driver's in its paths."""
        if self._config.home == self._home:
            return job
        payload, folder = relocate_paths([job.payload, job.log_folder], self._config.home, self._home)
        return Job(job.run, job.entry, payload, job.shape, folder)

    def _run(self, lease: RunLease) -> None:
        """Work on one lease to its final report, or to the STOP that the queue answers, or to an error.

        Raises the error where the group has peers.
        """
        job, sent = self._localised(lease.job), 0
        self._log.write_to(job.log_folder)
        self._log("lease taken, run begins", job.run, lease=lease.number, entry=job.entry.name)

        def report(values: Metrics) -> None:
            nonlocal sent
            answer = self._send(job.run, lease.number, sent, EpochReport(values=values))
            sent += 1
            if self._ranks.broadcast(answer) != Answer.CONTINUE:
                raise Stopped

        with _Heartbeat(self._queue, lease.number, job.run, self._log, active=self._ranks.rank == 0) as heartbeat:
            request: Request | None = None
            try:
                request_type, function = job.entry.load()
                request = request_type.model_validate(job.payload)
                ranks = replace(self._ranks, progressed=heartbeat.progressed)
                final = function(request, report, ranks)
            except Stopped:
                self._log("run stopped", job.run)
                return
            except Exception as error:
                # A bug in one run must not end a group of one: it becomes that run's verdict. With peers that wait in
                # a collective there is no way on: the group dies and Ray Train restarts it.
                failure = classify_failure(error, self._ranks.world)
                self._log("run failed", job.run, verdict=failure.verdict, error=type(error).__name__)
                reason = without_row_text(request, failure.verdict, failure.reason)
                ray.get(self._queue.call(RunQueue.failed, lease.number, failure.verdict, reason))
                if self._ranks.world > 1:
                    if reason != failure.reason:
                        raise RuntimeError(reason) from None  # Ray logs what is raised here
                    raise
                return
            self._log("run ended", job.run, verdict=final.verdict)
            final = final.model_copy(update={"reason": without_row_text(request, final.verdict, final.reason)})
            self._send(job.run, lease.number, sent, final)

    def _send(self, run: str, lease: int, index: int, report: EpochReport | FinalReport) -> Answer | None:
        """Return the queue's answer to rank 0's report; None on the other ranks."""
        if self._ranks.rank:
            return None
        self._log("report sent", run, index=index, final=int(isinstance(report, FinalReport)))
        answer = ray.get(self._queue.call(RunQueue.report, lease, index, report))
        self._log("answer received", run, index=index, answer=answer.value)
        return answer


class _Heartbeat:
    """A context that tells the queue that this group is alive while a run keeps its main thread busy, and how many of
    the run's steps are done."""

    def __init__(self, queue: RunQueueClient, lease: int, run: str, log: EventLog, active: bool) -> None:
        self._queue, self._lease, self._run, self._log = queue, lease, run, log
        self._end = threading.Event()
        self._steps = 0, 0
        self._thread = threading.Thread(target=self._beat, daemon=True) if active else None

    def _beat(self) -> None:
        sent, beat = self._steps, time.monotonic()
        while not self._end.wait(PROGRESS_S):
            due = time.monotonic() - beat >= HEARTBEAT_S
            if due or self._steps != sent:
                sent = self._steps
                self._queue.call(RunQueue.heartbeat, self._lease, sent)
            if due:
                beat = time.monotonic()
                self._log("heartbeat", self._run)

    def progressed(self, step: int, total: int) -> None:
        """Note the steps that are done, of all: the next heartbeat has them."""
        self._steps = step, total

    def __enter__(self) -> _Heartbeat:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
