"""The run queue as an actor on Ray's head node, and a typed handle to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import ray
from lethe.pool.messages import Answer, Instruction, Job, QueueStatus, Report, RunLease
from lethe.pool.resources import HEAD_SLIVER, Shape
from lethe.pool.run_queue import RunQueue
from lethe.records import Verdict

CONCURRENT_CALLS = 10_000  # every trial and every group has one that waits


@dataclass(frozen=True)
class RunQueueClient:
    """`RunQueue`'s methods as remote calls: each returns a reference to its result at once. May be pickled."""

    actor: Any  # Ray types an actor's methods as those of the class, without `remote`

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
        return cls(cast(Any, options).remote())

    def kill(self) -> None:
        """End the actor's process."""
        ray.kill(self.actor)

    def submit(self, job: Job, claim: str) -> ray.ObjectRef[bool]:
        """See `RunQueue.submit`."""
        return self.actor.submit.remote(job, claim)

    def next_report(self, run: str, seen: int) -> ray.ObjectRef[Report | None]:
        """See `RunQueue.next_report`."""
        return self.actor.next_report.remote(run, seen)

    def stop(self, run: str) -> ray.ObjectRef[None]:
        """See `RunQueue.stop`."""
        return self.actor.stop.remote(run)

    def withdraw(self, run: str, claim: str) -> ray.ObjectRef[None]:
        """See `RunQueue.withdraw`."""
        return self.actor.withdraw.remote(run, claim)

    def register(self, group: str, shape: Shape, nodes: tuple[str, ...] = ()) -> ray.ObjectRef[int]:
        """See `RunQueue.register`."""
        return self.actor.register.remote(group, shape, nodes)

    def take(self, group: str, incarnation: int, wait_s: float) -> ray.ObjectRef[RunLease | Instruction]:
        """See `RunQueue.take`."""
        return self.actor.take.remote(group, incarnation, wait_s)

    def report(self, lease: int, index: int, report: Report) -> ray.ObjectRef[Answer]:
        """See `RunQueue.report`."""
        return self.actor.report.remote(lease, index, report)

    def failed(self, lease: int, verdict: Verdict, reason: str) -> ray.ObjectRef[None]:
        """See `RunQueue.failed`."""
        return self.actor.failed.remote(lease, verdict, reason)

    def heartbeat(self, lease: int) -> ray.ObjectRef[bool]:
        """See `RunQueue.heartbeat`."""
        return self.actor.heartbeat.remote(lease)

    def abandon(self, reason: str) -> ray.ObjectRef[None]:
        """See `RunQueue.abandon`."""
        return self.actor.abandon.remote(reason)

    def dissolve(self, group: str) -> ray.ObjectRef[None]:
        """See `RunQueue.dissolve`."""
        return self.actor.dissolve.remote(group)

    def reclaim(self, group: str) -> ray.ObjectRef[None]:
        """See `RunQueue.reclaim`."""
        return self.actor.reclaim.remote(group)

    def deregister(self, group: str) -> ray.ObjectRef[None]:
        """See `RunQueue.deregister`."""
        return self.actor.deregister.remote(group)

    def status(self) -> ray.ObjectRef[QueueStatus]:
        """See `RunQueue.status`."""
        return self.actor.status.remote()

    def close(self) -> ray.ObjectRef[None]:
        """See `RunQueue.close`."""
        return self.actor.close.remote()
