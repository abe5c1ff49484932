"""The run queue between Tune trials and warm worker groups: requests, reports and leases.

One asynchronous actor holds it; as a plain class it runs in any event loop, so its rules are tested without Ray.

* A trial calls `submit` once and then `next_report(run, seen)`: "I have seen `seen` reports, go on, and
  give me the next". Repeating a call changes nothing. A run is kept until all who claimed it have called `forget`;
  a claim that comes late, from a trial's actor that died or was replaced, is void: nobody would read the reports, and
  the group would wait for ever.
* A worker group calls `register`, then `take` for ever. A lease is one group incarnation's right to work on
  one run. A report under a lost lease is answered "stale"; a run whose group died goes back to the front of the
  queue, at most `max_attempts` times without a new report in between.
* A run that is retried repeats its reports (equal run, equal result); those already seen are answered at once.
* A run queue that died and was started again knows nothing: groups are asked to register, trials to submit again, and
  no lease or incarnation of its former life is valid.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

Answer = Literal["continue", "stop", "stale"]
ReportPayload = dict[str, Any]


class Lease(TypedDict):
    """What a group gets from `take`: one run to work on, or the wish that it should `register` again or `exit`."""

    kind: Literal["run", "register", "exit"]
    lease: int
    run: str
    payload: dict[str, Any]


@dataclass
class _Run:
    payload: dict[str, Any]
    shape: str
    claims: set[str] = field(default_factory=set)
    reports: list[ReportPayload] = field(default_factory=list)
    continued: int = 0
    stopped: bool = False
    attempts: int = 0  # since its last new report
    fault: tuple[str, str] = ("lost", "")  # verdict and reason of the last attempt, should there be no other
    lease: int | None = None

    @property
    def final(self) -> bool:
        return bool(self.reports) and bool(self.reports[-1].get("final"))

    def end(self, verdict: str, reason: str = "") -> None:
        self.reports.append({"final": True, "verdict": verdict, "reason": reason})


@dataclass
class _Group:
    shape: str
    incarnation: int = 0
    lease: int | None = None
    nodes: tuple[str, ...] = ()
    dissolved: bool = False
    beat: float = 0.0


class RunQueue:
    """See the module. Times are seconds; `lapse_s` without a heartbeat ends a lease."""

    def __init__(self, max_attempts: int = 3, lapse_s: float = 120.0) -> None:
        self._max_attempts = max_attempts
        self._lapse_s = lapse_s
        self._runs: dict[str, _Run] = {}
        self._groups: dict[str, _Group] = {}
        self._queue: deque[str] = deque()
        self._leases: dict[int, tuple[str, str]] = {}
        self._void: set[str] = set()
        self._ids = itertools.count(secrets.randbits(48))
        self._changed = asyncio.Condition()
        self._closed = False
        self._abandoned: str | None = None

    # The trial's side

    async def submit(self, run: str, payload: dict[str, Any], shape: str, claim: str) -> bool:
        """Queue a run under its digest; a second submit of the same digest is the same run. False: the claim is void."""
        if claim in self._void:
            return False
        if run not in self._runs:
            self._runs[run] = _Run(payload, shape)
            if self._abandoned is None:
                self._queue.append(run)
        self._runs[run].claims.add(claim)
        await self._notify()
        return True

    async def next_report(self, run: str, seen: int) -> ReportPayload | None:
        """Answer the first `seen` reports with "continue" and wait for the next one; None: submit the run again."""
        entry = self._runs.get(run)
        if entry is None:
            return None
        entry.continued = max(entry.continued, seen)
        await self._notify()
        await self._until(lambda: len(entry.reports) > seen or self._abandoned is not None)
        if len(entry.reports) > seen:
            return entry.reports[seen]
        return {"final": True, "verdict": "interrupted", "reason": self._abandoned}

    async def stop(self, run: str) -> None:
        """End a run at its next report; one that no group has taken yet ends at once."""
        entry = self._runs.get(run)
        if entry is None or entry.final:
            return
        entry.stopped = True
        if run in self._queue:
            self._queue.remove(run)
            entry.end("stopped")
        await self._notify()

    async def forget(self, run: str, claim: str) -> None:
        """A trial has ended: its claim is void from now on. Without any other its run is stopped and dropped."""
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

    async def register(self, group: str, shape: str, nodes: tuple[str, ...] = ()) -> int:
        """A group's process has (re)started, on these nodes (Ray's ids): give its new incarnation; what it was working
        on is queued again."""
        entry = self._groups.setdefault(group, _Group(shape))
        self._reclaim(entry)
        entry.incarnation = next(self._ids)
        entry.nodes = nodes
        entry.beat = time.monotonic()
        await self._notify()
        return entry.incarnation

    async def take(self, group: str, incarnation: int, wait_s: float) -> Lease | None:
        """The next run for this group's shape, or None after `wait_s` so that idle ranks keep in touch."""
        entry = self._groups.get(group)
        if entry is None:
            return Lease(kind="exit" if self._closed else "register", lease=0, run="", payload={})
        if incarnation != entry.incarnation:
            return Lease(kind="exit", lease=0, run="", payload={})
        self._release(entry)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                await asyncio.wait_for(self._until(lambda: self._ready(entry, incarnation)), left)
            except TimeoutError:
                return None
            if incarnation != entry.incarnation or entry.dissolved or self._closed:
                return Lease(kind="exit", lease=0, run="", payload={})
            # Several groups wake for one run: whoever comes second finds the queue empty and waits on.
            if self._wanted(entry.shape):
                return self._grant(group, entry)

    async def report(self, lease: int, index: int, report: ReportPayload) -> Answer:
        """Report number `index` of a run. Blocks until the trial answers; a final report is answered at once."""
        if lease not in self._leases:
            return "stale"
        entry = self._runs.get(self._leases[lease][0])
        if entry is None:
            return "stop"
        if index == len(entry.reports):
            entry.reports.append(report)
            entry.attempts = 1
            await self._notify()
        if report.get("final"):
            return "continue"
        await self._until(lambda: entry.continued > index or self._unwanted(entry) or lease not in self._leases)
        if lease not in self._leases:
            return "stale"
        return "stop" if self._unwanted(entry) else "continue"

    async def failed(self, lease: int, verdict: str, reason: str) -> None:
        """A rank cannot go on. `lost` (a peer vanished) and `interrupted` (I/O) are tried again, and are the end once
        there were too many attempts; any other verdict is the run's result, whatever becomes of the group."""
        if lease not in self._leases:
            return
        name, group = self._leases[lease]
        run = self._runs.get(name)
        if run is not None and not run.final:
            if verdict in ("lost", "interrupted"):
                run.fault = (verdict, reason)
                self._reclaim(self._groups[group])
            else:
                run.end(verdict, reason)
        await self._notify()

    async def heartbeat(self, lease: int) -> bool:
        """A group is alive and working under this lease; False: the lease is lost."""
        if lease not in self._leases:
            return False
        self._groups[self._leases[lease][1]].beat = time.monotonic()
        return True

    # The pool's side

    async def abandon(self, reason: str) -> None:
        """No run goes on: trials are told that theirs are interrupted, groups stop at their next report."""
        self._abandoned = self._abandoned or reason
        self._queue.clear()
        await self._notify()

    async def dissolve(self, group: str) -> None:
        """Let a group end when it next asks for work."""
        if group in self._groups:
            self._groups[group].dissolved = True
        await self._notify()

    async def reclaim(self, group: str) -> None:
        """A group has lost a node, and will register again if it gets another: queue its work for others."""
        entry = self._groups.get(group)
        if entry is not None:
            entry.nodes = ()
            self._reclaim(entry)
        await self._notify()

    async def gone(self, group: str) -> None:
        """A group has ended for good: forget it, queue its work again."""
        entry = self._groups.pop(group, None)
        if entry is not None:
            entry.incarnation += 1
            self._reclaim(entry)
        await self._notify()

    async def status(self) -> dict[str, Any]:
        """Queued runs by shape; for every group its shape and whether it waits for work; why all were abandoned."""
        if self._lapse():
            await self._notify()
        queued: dict[str, int] = {}
        for run in self._queue:
            queued[self._runs[run].shape] = queued.get(self._runs[run].shape, 0) + 1
        groups = {
            name: {
                "shape": g.shape,
                "idle": g.lease is None and g.incarnation > 0,
                "dissolved": g.dissolved,
                "nodes": g.nodes,
            }
            for name, g in self._groups.items()
        }
        return {"queued": queued, "groups": groups, "abandoned": self._abandoned}

    async def close(self) -> None:
        """Stop every run at its next report and end every group."""
        self._closed = True
        await self._notify()

    # Inside

    def _ready(self, group: _Group, incarnation: int) -> bool:
        return self._closed or group.dissolved or group.incarnation != incarnation or self._wanted(group.shape)

    def _unwanted(self, run: _Run) -> bool:
        return run.stopped or self._closed or self._abandoned is not None

    def _wanted(self, shape: str) -> bool:
        return any(self._runs[run].shape == shape for run in self._queue)

    def _grant(self, name: str, group: _Group) -> Lease:
        run = next(r for r in self._queue if self._runs[r].shape == group.shape)
        self._queue.remove(run)
        entry = self._runs[run]
        entry.attempts += 1
        entry.fault = ("lost", f"its workers died {entry.attempts} times")
        entry.lease = group.lease = next(self._ids)
        group.beat = time.monotonic()
        self._leases[group.lease] = (run, name)
        return Lease(kind="run", lease=group.lease, run=run, payload=entry.payload)

    def _release(self, group: _Group) -> None:
        """The group asks for new work: what it had is finished. A run that it left without a final report was stopped."""
        run = self._drop(group)
        if run is not None and not run.final:
            run.end("stopped")

    def _reclaim(self, group: _Group) -> None:
        """The group died or gave up: its run is queued again, or ends after too many attempts."""
        lease = group.lease
        name = self._leases[lease][0] if lease in self._leases else None
        run = self._drop(group)
        if run is None or run.final or name is None:
            return
        if run.stopped:
            run.end("stopped")
        elif run.attempts < self._max_attempts:
            self._queue.appendleft(name)
        elif run.fault[0] == "lost":
            run.end(*run.fault)
        else:  # what it writes to or reads from fails, and will for the others
            self._abandoned = self._abandoned or run.fault[1]
            self._queue.clear()

    def _drop(self, group: _Group) -> _Run | None:
        lease, group.lease = group.lease, None
        if lease is None or lease not in self._leases:
            return None
        run = self._runs.get(self._leases.pop(lease)[0])
        if run is not None:
            run.lease = None
        return run

    def _lapse(self) -> bool:
        now = time.monotonic()
        late = [g for g in self._groups.values() if g.lease is not None and now - g.beat > self._lapse_s]
        for group in late:
            self._reclaim(group)
        return bool(late)

    async def _until(self, ready: Any) -> None:
        async with self._changed:
            await self._changed.wait_for(ready)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
