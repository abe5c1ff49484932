"""The mailbox between Tune trials and warm worker groups: requests, reports and leases.

One asynchronous actor holds it; as a plain class it runs in any event loop, so its rules are tested without Ray.

* A trial calls `submit` once and then `next_report(run, seen)`: "I have seen `seen` reports, go on, and
  give me the next". Repeating a call changes nothing.
* A worker group calls `register`, then `take` for ever. A lease is one group incarnation's right to work on
  one run. A report under a lost lease is answered "stale"; a run whose group died goes back to the front of the
  queue, at most `max_attempts` times.
* A run that is retried repeats its reports (equal run, equal result); those already seen are answered at once.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

Answer = Literal["continue", "stop", "stale"]
Report = dict[str, Any]


class Lease(TypedDict):
    """What a group gets from `take`: one run to work on, or `exit`."""

    kind: Literal["run", "exit"]
    lease: int
    run: str
    payload: dict[str, Any]


@dataclass
class _Run:
    payload: dict[str, Any]
    shape: str
    reports: list[Report] = field(default_factory=list)
    continued: int = 0
    stopped: bool = False
    attempts: int = 0
    lease: int | None = None

    @property
    def final(self) -> bool:
        return bool(self.reports) and bool(self.reports[-1].get("final"))


@dataclass
class _Group:
    shape: str
    incarnation: int = 0
    lease: int | None = None
    nodes: tuple[str, ...] = ()
    dissolved: bool = False
    beat: float = 0.0


class Mailbox:
    """See the module. Times are seconds; `lapse_s` without a heartbeat ends a lease."""

    def __init__(self, max_attempts: int = 3, lapse_s: float = 120.0) -> None:
        self._max_attempts = max_attempts
        self._lapse_s = lapse_s
        self._runs: dict[str, _Run] = {}
        self._groups: dict[str, _Group] = {}
        self._queue: deque[str] = deque()
        self._leases: dict[int, tuple[str, str]] = {}
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._closed = False

    # The trial's side

    async def submit(self, run: str, payload: dict[str, Any], shape: str) -> None:
        """Queue a run under its digest; a second submit of the same digest is the same run."""
        if run in self._runs:
            return
        self._runs[run] = _Run(payload, shape)
        self._queue.append(run)
        await self._notify()

    async def next_report(self, run: str, seen: int) -> Report:
        """Answer the first `seen` reports with "continue" and wait for the next one."""
        entry = self._runs.get(run)
        if entry is None:
            return {"final": True, "verdict": "lost", "reason": "the mailbox does not know this run"}
        entry.continued = max(entry.continued, seen)
        await self._notify()
        await self._until(lambda: len(entry.reports) > seen)
        return entry.reports[seen]

    async def stop(self, run: str) -> None:
        """End a run at its next report; one that no group has taken yet ends at once."""
        entry = self._runs.get(run)
        if entry is None or entry.final:
            return
        entry.stopped = True
        if run in self._queue:
            self._queue.remove(run)
            entry.reports.append({"final": True, "verdict": "stopped"})
        await self._notify()

    async def forget(self, run: str) -> None:
        """Drop a finished run's reports."""
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
        entry.incarnation += 1
        entry.nodes = nodes
        entry.beat = time.monotonic()
        await self._notify()
        return entry.incarnation

    async def take(self, group: str, incarnation: int, wait_s: float) -> Lease | None:
        """The next run for this group's shape, or None after `wait_s` so that idle ranks keep in touch."""
        entry = self._groups[group]
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

    async def report(self, lease: int, index: int, report: Report) -> Answer:
        """Report number `index` of a run. Blocks until the trial answers; a final report is answered at once."""
        if lease not in self._leases:
            return "stale"
        entry = self._runs.get(self._leases[lease][0])
        if entry is None:
            return "stop"
        if index == len(entry.reports):
            entry.reports.append(report)
            await self._notify()
        if report.get("final"):
            return "continue"
        await self._until(
            lambda: entry.continued > index or entry.stopped or self._closed or lease not in self._leases
        )
        if lease not in self._leases:
            return "stale"
        return "stop" if entry.stopped or self._closed else "continue"

    async def heartbeat(self, lease: int) -> bool:
        """A group is alive and working under this lease; False: the lease is lost."""
        if lease not in self._leases:
            return False
        self._groups[self._leases[lease][1]].beat = time.monotonic()
        return True

    # The pool's side

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
        """Queued runs by shape; for every group its shape, whether it waits for work and how often it started."""
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
                "incarnation": g.incarnation,
                "nodes": g.nodes,
            }
            for name, g in self._groups.items()
        }
        return {"queued": queued, "groups": groups}

    async def close(self) -> None:
        """Stop every run at its next report and end every group."""
        self._closed = True
        await self._notify()

    # Inside

    def _ready(self, group: _Group, incarnation: int) -> bool:
        return (
            self._closed
            or group.dissolved
            or group.incarnation != incarnation
            or self._wanted(group.shape)
        )

    def _wanted(self, shape: str) -> bool:
        return any(self._runs[run].shape == shape for run in self._queue)

    def _grant(self, name: str, group: _Group) -> Lease:
        run = next(r for r in self._queue if self._runs[r].shape == group.shape)
        self._queue.remove(run)
        entry = self._runs[run]
        entry.attempts += 1
        entry.lease = group.lease = next(self._ids)
        group.beat = time.monotonic()
        self._leases[group.lease] = (run, name)
        return Lease(kind="run", lease=group.lease, run=run, payload=entry.payload)

    def _release(self, group: _Group) -> None:
        """The group asks for new work: what it had is finished. A run that it left without a final report was stopped."""
        run = self._drop(group)
        if run is not None and not run.final:
            run.reports.append({"final": True, "verdict": "stopped"})

    def _reclaim(self, group: _Group) -> None:
        """The group died: its run is queued again, or ends as lost after too many attempts."""
        lease = group.lease
        name = self._leases[lease][0] if lease in self._leases else None
        run = self._drop(group)
        if run is None or run.final or name is None:
            return
        if run.stopped:
            run.reports.append({"final": True, "verdict": "stopped"})
        elif run.attempts >= self._max_attempts:
            reason = f"its workers died {run.attempts} times"
            run.reports.append({"final": True, "verdict": "lost", "reason": reason})
        else:
            self._queue.appendleft(name)

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
