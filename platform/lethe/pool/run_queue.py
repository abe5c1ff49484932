"""The run queue between those who want runs and warm worker groups: jobs, reports and leases.

`RunQueue` has the rules. As a plain class it runs in any event loop, so they are tested without Ray. `RunQueueClient`
is a typed handle to the actor that holds it on Ray's head node, `QueuedRun` one run in it as its asker sees it: a trial
of Ray Tune's, or a baseline.

* A trial calls `submit` once and then `next_report(run, seen)`: "I have seen `seen` reports, go on, and
  give me the next". Repeating a call changes nothing. A run is kept until all who claimed it have called `withdraw`;
  a claim that comes late, from a trial's actor that died or was replaced, is void: nobody would read the reports, and
  the group would wait for ever.
* A worker group calls `register`, then `take` for ever. A lease is one group incarnation's right to work on
  one run. A report under a lost lease is answered STALE; a run whose group died goes back to the front of the
  queue, at most `max_attempts` times without a new report in between.
* A run that is retried repeats its reports (equal run, equal result); those already seen are answered at once.
* A queue that died and was started again knows nothing: groups are asked to register, trials to submit again, and
  no lease or incarnation of its former life is valid.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import ray

from lethe.pool.event_log import EventLog
from lethe.pool.messages import Answer, GroupStatus, Instruction, Job, QueueStatus, Report, RunLease
from lethe.pool.resources import HEAD_SLIVER, Shape
from lethe.records import FinalReport, Verdict

P = ParamSpec("P")
R = TypeVar("R")

STOPPED, LOST = FinalReport(verdict="stopped"), FinalReport(verdict="lost")
Steps = tuple[int, int]  # of a run: done, and all; 0 of 0 before the first
RETRIED: tuple[Verdict, ...] = ("lost", "interrupted")  # another attempt may do better


@dataclass
class _Run:
    job: Job
    claims: set[str] = field(default_factory=set)
    reports: list[Report] = field(default_factory=list)
    continued: int = 0  # reports that are answered with CONTINUE
    stopped: bool = False
    attempts: int = 0  # since its last new report
    fault: FinalReport = LOST  # of the last attempt, the result if it stays the last
    lease: int | None = None
    steps: Steps = 0, 0  # by the last heartbeat of whoever works on it

    @property
    def ended(self) -> bool:
        return bool(self.reports) and isinstance(self.reports[-1], FinalReport)


@dataclass
class _Group:
    shape: Shape
    incarnation: int = 0
    lease: int | None = None
    nodes: tuple[str, ...] = ()
    dissolved: bool = False
    beat: float = 0.0  # monotonic seconds


class RunQueue:
    """The queue's rules: see the module. Times are seconds; `lapse_s` without a heartbeat ends a lease."""

    def __init__(self, max_attempts: int = 3, lapse_s: float = 120.0) -> None:
        self._max_attempts = max_attempts
        self._lapse_s = lapse_s
        self._runs: dict[str, _Run] = {}
        self._groups: dict[str, _Group] = {}
        self._queue: deque[str] = deque()
        self._leases: dict[int, tuple[str, str]] = {}  # run and group by number
        self._void: set[str] = set()  # claims
        self._ids = itertools.count(secrets.randbits(48))
        self._changed = asyncio.Condition()
        self._closed = False
        self._abandoned: str | None = None
        self._log = EventLog("queue")

    # The trial's side

    async def submit(self, job: Job, claim: str) -> bool:
        """Queue a job for `claim`; a second submit of the same run is the same run. Returns False for a void claim."""
        if claim in self._void:
            return False
        if job.run not in self._runs:
            self._log.write_to(job.log_folder)
            self._log("job submitted", job.run, entry=job.entry.name, shape=job.shape.key)
            self._runs[job.run] = _Run(job)
            if self._abandoned is None:
                self._queue.append(job.run)
        self._runs[job.run].claims.add(claim)
        await self._notify()
        return True

    async def next_report(self, run: str, seen: int) -> Report | None:
        """Answer the first `seen` reports with CONTINUE and wait for the next one; None: submit the run again."""
        entry = self._runs.get(run)
        if entry is None:
            return None
        entry.continued = max(entry.continued, seen)
        await self._notify()
        await self._until(lambda: len(entry.reports) > seen or self._closed or self._abandoned is not None)
        if len(entry.reports) > seen:
            return entry.reports[seen]
        return FinalReport(verdict="interrupted", reason=self._abandoned or "the session ended")

    async def progress(self) -> dict[str, Steps]:
        """Return the steps of every run in the queue, by the last heartbeat of its group."""
        return {name: entry.steps for name, entry in self._runs.items()}

    async def stop(self, run: str) -> None:
        """End a run at its next report; one that no group has taken yet ends at once."""
        entry = self._runs.get(run)
        if entry is None or entry.ended:
            return
        self._log("stop asked for", run)
        entry.stopped = True
        if run in self._queue:
            self._queue.remove(run)
            entry.reports.append(STOPPED)
        await self._notify()

    async def withdraw(self, run: str, claim: str) -> None:
        """Void a claim for ever: its trial has ended. A run without any other is stopped and dropped."""
        self._void.add(claim)
        if run in self._runs:
            self._runs[run].claims.discard(claim)
            if self._runs[run].claims:
                return
        await self.stop(run)
        entry = self._runs.pop(run, None)
        if entry is not None and entry.lease is not None:
            self._leases.pop(entry.lease, None)
        await self._notify()

    # The group's side

    async def register(self, group: str, shape: Shape, nodes: tuple[str, ...] = ()) -> int:
        """Return a new incarnation for a group whose processes have (re)started, on these nodes (Ray's ids); queue the
        work of its former one again."""
        entry = self._groups.setdefault(group, _Group(shape))
        self._reclaim(entry)
        entry.incarnation = next(self._ids)
        entry.nodes = nodes
        entry.beat = time.monotonic()
        self._log("group registered", group=group, shape=shape.key, nodes=len(set(nodes)))
        await self._notify()
        return entry.incarnation

    async def take(self, group: str, incarnation: int, wait_s: float) -> RunLease | Instruction:
        """Return a lease of the next job for this group's shape, or an instruction: WAIT after `wait_s` without one, so
        that idle ranks keep in touch."""
        entry = self._groups.get(group)
        if entry is None:
            return Instruction.EXIT if self._closed else Instruction.REGISTER
        if incarnation != entry.incarnation:
            return Instruction.EXIT
        self._finish(entry)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                await asyncio.wait_for(self._until(lambda: self._ready(entry, incarnation)), left)
            except TimeoutError:
                return Instruction.WAIT
            if incarnation != entry.incarnation or entry.dissolved or self._closed:
                return Instruction.EXIT
            # Several groups wake for one run: whoever comes second finds the queue empty and waits on.
            if self._waiting(entry.shape):
                return self._grant(group, entry)

    async def report(self, lease: int, index: int, report: Report) -> Answer:
        """Take report number `index` of a run. Blocks until the trial answers; a final report is answered at once."""
        if lease not in self._leases:
            return Answer.STALE
        run = self._leases[lease][0]
        entry = self._runs.get(run)
        if entry is None:
            return Answer.STOP
        if index == len(entry.reports):
            entry.reports.append(report)
            entry.attempts = 1
            self._log("report received", run, index=index, final=int(isinstance(report, FinalReport)))
            await self._notify()
        if isinstance(report, FinalReport):
            return Answer.CONTINUE
        await self._until(lambda: entry.continued > index or self._unwanted(entry) or lease not in self._leases)
        if lease not in self._leases:
            return Answer.STALE
        return Answer.STOP if self._unwanted(entry) else Answer.CONTINUE

    async def failed(self, lease: int, verdict: Verdict, reason: str) -> None:
        """End the attempt of a rank that cannot go on. Verdicts in `RETRIED` are tried again, and are the end once
        there were too many attempts; any other is the run's result, whatever becomes of the group."""
        if lease not in self._leases:
            return
        name, group = self._leases[lease]
        run = self._runs.get(name)
        self._log("attempt failed", name, group=group, verdict=verdict)
        if run is not None and not run.ended:
            fault = FinalReport(verdict=verdict, reason=reason)
            if verdict in RETRIED:
                run.fault = fault
                self._reclaim(self._groups[group])
            else:
                run.reports.append(fault)
        await self._notify()

    async def heartbeat(self, lease: int, steps: Steps = (0, 0)) -> bool:
        """Note that a group is alive, works under this lease and has done these `steps` of its run; False: the lease is
        lost."""
        if lease not in self._leases:
            return False
        run, group = self._leases[lease]
        self._groups[group].beat = time.monotonic()
        if run in self._runs:
            self._runs[run].steps = steps
        return True

    # The pool's side

    async def abandon(self, reason: str) -> None:
        """Let no run go on: trials are told that theirs are interrupted, groups stop at their next report."""
        self._log("all runs abandoned")
        self._abandoned = self._abandoned or reason
        self._queue.clear()
        await self._notify()

    async def dissolve(self, group: str) -> None:
        """Let a group end when it next asks for work."""
        if group in self._groups:
            self._log("group dissolved", group=group)
            self._groups[group].dissolved = True
        await self._notify()

    async def reclaim(self, group: str) -> None:
        """Queue the work of a group that has lost a node for others; it registers again if it gets another node."""
        entry = self._groups.get(group)
        if entry is not None:
            entry.nodes = ()
            self._reclaim(entry)
        await self._notify()

    async def deregister(self, group: str) -> None:
        """Drop a group that has ended for good, and queue its work again."""
        entry = self._groups.pop(group, None)
        if entry is not None:
            self._log("group deregistered", group=group)
            entry.incarnation += 1
            self._reclaim(entry)
        await self._notify()

    async def status(self) -> QueueStatus:
        """Return the queued runs by shape, every group, and why all runs were abandoned; ends leases that lapsed."""
        if self._end_lapsed():
            await self._notify()
        groups = {
            name: GroupStatus(g.shape, idle=g.lease is None and g.incarnation > 0, dissolved=g.dissolved, nodes=g.nodes)
            for name, g in self._groups.items()
        }
        return QueueStatus(dict(Counter(self._runs[run].job.shape for run in self._queue)), groups, self._abandoned)

    async def close(self) -> None:
        """Stop every run at its next report and end every group; whoever waits for a run hears that it is
        interrupted."""
        self._log("closed")
        self._closed = True
        await self._notify()

    # Inside

    def _ready(self, group: _Group, incarnation: int) -> bool:
        return self._closed or group.dissolved or group.incarnation != incarnation or self._waiting(group.shape)

    def _unwanted(self, run: _Run) -> bool:
        return run.stopped or self._closed or self._abandoned is not None

    def _waiting(self, shape: Shape) -> bool:
        return any(self._runs[run].job.shape == shape for run in self._queue)

    def _grant(self, name: str, group: _Group) -> RunLease:
        run = next(r for r in self._queue if self._runs[r].job.shape == group.shape)
        self._queue.remove(run)
        entry = self._runs[run]
        entry.attempts += 1
        entry.fault = FinalReport(verdict="lost", reason=f"its workers died {entry.attempts} times")
        entry.lease = group.lease = next(self._ids)
        group.beat = time.monotonic()
        self._leases[group.lease] = (run, name)
        self._log("lease granted", run, group=name, lease=group.lease, attempt=entry.attempts)
        return RunLease(group.lease, entry.job)

    def _finish(self, group: _Group) -> None:
        """End the lease of a group that asks for new work. A run that it left without a final report was stopped."""
        run = self._end_lease(group)
        if run is not None and not run.ended:
            run.reports.append(STOPPED)

    def _reclaim(self, group: _Group) -> None:
        """End the lease of a group that died or gave up: queue its run again, or end it after too many attempts."""
        run = self._end_lease(group)
        if run is None or run.ended:
            return
        self._log("run taken back", run.job.run, attempts=run.attempts)
        if run.stopped:
            run.reports.append(STOPPED)
        elif run.attempts < self._max_attempts:
            self._queue.appendleft(run.job.run)
        elif run.fault.verdict == "lost":
            run.reports.append(run.fault)
        else:  # what it writes to or reads from fails, and will for the others
            self._abandoned = self._abandoned or run.fault.reason
            self._queue.clear()

    def _end_lease(self, group: _Group) -> _Run | None:
        """End a group's lease; returns its run unless that was dropped meanwhile."""
        number, group.lease = group.lease, None
        if number is None or number not in self._leases:
            return None
        run = self._runs.get(self._leases.pop(number)[0])
        if run is not None:
            run.lease = None
        return run

    def _end_lapsed(self) -> bool:
        now = time.monotonic()
        late = {name: g for name, g in self._groups.items() if g.lease is not None and now - g.beat > self._lapse_s}
        for name, group in late.items():
            self._log("no heartbeat, lease lapsed", group=name)
            self._reclaim(group)
        return bool(late)

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(ready)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


CONCURRENT_CALLS = 10_000  # every trial and every group has one that waits


@dataclass(frozen=True)
class RunQueueClient:
    """A handle to the actor, `client.call(RunQueue.stop, run)`; it may be pickled."""

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

    def call(
        self, method: Callable[Concatenate[RunQueue, P], Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> ray.ObjectRef[R]:
        """Call a method of `RunQueue` in the actor; return a reference to its result at once."""
        reference: ray.ObjectRef[R] = getattr(self.actor, method.__name__).remote(*args, **kwargs)
        return reference

    def kill(self) -> None:
        """End the actor's process."""
        ray.kill(self.actor)


GetReport = Callable[["ray.ObjectRef[Report | None]"], Report | None]


class QueuedRun:
    """A job that is submitted when this is made, and again whenever the queue has died and lost it."""

    def __init__(self, queue: RunQueueClient, job: Job, claim: str) -> None:
        """`claim`: the name of whoever asks for the job."""
        self._queue, self._job, self._claim = queue, job, claim
        self._submit()

    def report(self, seen: int, get: GetReport = ray.get) -> Report:
        """Return the report after the first `seen`, which are answered with CONTINUE; `get` waits for a reference."""
        while (report := get(self._queue.call(RunQueue.next_report, self._job.run, seen))) is None:
            if not self._submit():
                return FinalReport(verdict="stopped")
        return report

    def _submit(self) -> bool:
        return ray.get(self._queue.call(RunQueue.submit, self._job, self._claim))
