"""The run queue as an actor on Ray's head node, a typed handle to it, and one run in it as its asker sees it.

`QueuedRun` follows a run: a trial of Ray Tune's, or a baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import ray

from lethe.pool.messages import Answer, Instruction, Job, QueueStatus, Report, RunLease
from lethe.pool.resources import HEAD_SLIVER, Shape
from lethe.pool.run_queue import RunQueue
from lethe.records import FinalReport, Verdict

P = ParamSpec("P")
R = TypeVar("R")

CONCURRENT_CALLS = 10_000  # every trial and every group has one that waits


@dataclass(frozen=True)
class RunQueueClient:
    """`RunQueue`'s methods as remote calls: each returns a reference to its result at once. May be pickled."""

    actor: Any  # Ray types a handle's methods as those of the class, without `remote`

    @classmethod
    def start(cls) -> RunQueueClient:
        """Start the actor. Calls that it leaves open when it dies are made again once it is back, with nothing in it;
        its rules allow for repetition."""
        options = ray.remote(RunQueue).options(
            num_cpus=0,
            resources=HEAD_SLIVER,
            max_concurrency=CONCURRENT_CALLS,
            max_restarts=-1,
            max_task_retries=-1,
        )
        return cls(cast(Any, options).remote())  # what `options` returns has no type

    def _call(
        self, method: Callable[Concatenate[RunQueue, P], Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> ray.ObjectRef[R]:
        reference: ray.ObjectRef[R] = getattr(self.actor, method.__name__).remote(*args, **kwargs)
        return reference

    def kill(self) -> None:
        """End the actor's process."""
        ray.kill(self.actor)

    def submit(self, job: Job, claim: str) -> ray.ObjectRef[bool]:
        """See `RunQueue.submit`."""
        return self._call(RunQueue.submit, job, claim)

    def next_report(self, run: str, seen: int) -> ray.ObjectRef[Report | None]:
        """See `RunQueue.next_report`."""
        return self._call(RunQueue.next_report, run, seen)

    def stop(self, run: str) -> ray.ObjectRef[None]:
        """See `RunQueue.stop`."""
        return self._call(RunQueue.stop, run)

    def withdraw(self, run: str, claim: str) -> ray.ObjectRef[None]:
        """See `RunQueue.withdraw`."""
        return self._call(RunQueue.withdraw, run, claim)

    def register(self, group: str, shape: Shape, nodes: tuple[str, ...] = ()) -> ray.ObjectRef[int]:
        """See `RunQueue.register`."""
        return self._call(RunQueue.register, group, shape, nodes)

    def take(self, group: str, incarnation: int, wait_s: float) -> ray.ObjectRef[RunLease | Instruction]:
        """See `RunQueue.take`."""
        return self._call(RunQueue.take, group, incarnation, wait_s)

    def report(self, lease: int, index: int, report: Report) -> ray.ObjectRef[Answer]:
        """See `RunQueue.report`."""
        return self._call(RunQueue.report, lease, index, report)

    def failed(self, lease: int, verdict: Verdict, reason: str) -> ray.ObjectRef[None]:
        """See `RunQueue.failed`."""
        return self._call(RunQueue.failed, lease, verdict, reason)

    def heartbeat(self, lease: int) -> ray.ObjectRef[bool]:
        """See `RunQueue.heartbeat`."""
        return self._call(RunQueue.heartbeat, lease)

    def abandon(self, reason: str) -> ray.ObjectRef[None]:
        """See `RunQueue.abandon`."""
        return self._call(RunQueue.abandon, reason)

    def dissolve(self, group: str) -> ray.ObjectRef[None]:
        """See `RunQueue.dissolve`."""
        return self._call(RunQueue.dissolve, group)

    def reclaim(self, group: str) -> ray.ObjectRef[None]:
        """See `RunQueue.reclaim`."""
        return self._call(RunQueue.reclaim, group)

    def deregister(self, group: str) -> ray.ObjectRef[None]:
        """See `RunQueue.deregister`."""
        return self._call(RunQueue.deregister, group)

    def status(self) -> ray.ObjectRef[QueueStatus]:
        """See `RunQueue.status`."""
        return self._call(RunQueue.status)

    def close(self) -> ray.ObjectRef[None]:
        """See `RunQueue.close`."""
        return self._call(RunQueue.close)


GetReport = Callable[["ray.ObjectRef[Report | None]"], Report | None]


class QueuedRun:
    """A job that is submitted when this is made, and again whenever the queue has died and lost it."""

    def __init__(self, queue: RunQueueClient, job: Job, claim: str) -> None:
        """`claim`: the name of whoever asks for the job."""
        self._queue, self._job, self._claim = queue, job, claim
        self._submit()

    def report(self, seen: int, get: GetReport = ray.get) -> Report:
        """Return the report after the first `seen`, which are answered with CONTINUE; `get` waits for a reference."""
        while (report := get(self._queue.next_report(self._job.run, seen))) is None:
            if not self._submit():
                return FinalReport(verdict="stopped")
        return report

    def _submit(self) -> bool:
        return ray.get(self._queue.submit(self._job, self._claim))
