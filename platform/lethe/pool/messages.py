"""Messages between driver, run queue, trials and worker groups. Imports neither torch nor Ray.

A `Job` is an envelope around a request in JSON: the driver dumps the request, the worker parses it, once each. JSON has
three merits here. The dump leaves out fields without meaning, as a run's digest does, so that a worker runs exactly
what the digest names. A worker whose storage root lies elsewhere can rewrite the paths in it. And the run queue carries
jobs of packages that it does not import. Everything else travels as the frozen values below and the reports of
`lethe.records`, which Ray pickles: every process of a session imports the driver's `lethe`, which Ray ships to it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, get_type_hints

from pydantic import JsonValue

from lethe.pool.resources import Shape
from lethe.records import EpochReport, FinalReport
from lethe.unlearning.requests import Request

Report = EpochReport | FinalReport
Payload = dict[str, JsonValue]
EntryFunction = Callable[..., FinalReport]  # of a request, a function that sends the values of an epoch, and the ranks


class EntryPoint(StrEnum):
    """The functions that a worker group can run. A function's first parameter is annotated with its request's type."""

    TRIAL = "lethe.unlearning.worker_entry:run_trial"
    FINETUNE = "lethe.unlearning.finetuning:run_finetuning"
    BASELINE = "lethe.unlearning.worker_entry:run_baseline"
    AUDITED_TRIAL = "lethe.audits.worker_entry:run_audited_trial"
    AUDIT = "lethe.audits.worker_entry:run_audit"
    COST_POINT = "lethe.scaling.measure:run_cost_point"
    PROBE = "lethe.ops.doctor.workers:run_probe"
    NULL = "lethe.pool.null_run:run_nothing"

    def load(self) -> tuple[type[Request], EntryFunction]:
        """Import the function and return its request's type and itself."""
        module, name = self.value.split(":")
        function = getattr(importlib.import_module(module), name)
        return get_type_hints(function)["request"], function


@dataclass(frozen=True)
class Job:
    """Work for one group of this shape. `run` names it in the queue: a digest where there is one, unique anyway.

    `log_folder`: where its processes log what they do (`lethe.pool.event_log`), None while that is off.
    """

    run: str
    entry: EntryPoint
    payload: Payload
    shape: Shape
    log_folder: str | None = None

    @classmethod
    def of(cls, run: str, entry: EntryPoint, request: Request, shape: Shape, log_folder: str | None = None) -> Job:
        """Return the job that calls `entry` with `request`."""
        return cls(run, entry, request.model_dump(mode="json"), shape, log_folder)


class Instruction(Enum):
    """An answer to a group that asks for work and gets no lease."""

    WAIT = "wait"  # there is none: keep in touch and ask again
    REGISTER = "register"  # the queue was started again and does not know the group
    EXIT = "exit"


@dataclass(frozen=True)
class RunLease:
    """The right of one incarnation of a group to work on one job, under this number."""

    number: int
    job: Job


class Answer(StrEnum):
    """The answer to a report: go on; end the run, whose result is not needed any more; or the lease is not valid."""

    CONTINUE = "continue"
    STOP = "stop"
    STALE = "stale"


@dataclass(frozen=True)
class GroupStatus:
    """A registered group. `nodes` are Ray's ids of its workers' nodes; a dissolved group ends when it is idle."""

    shape: Shape
    idle: bool
    dissolved: bool
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class QueueStatus:
    """The queue at one moment. `abandoned`: why no run goes on, None while they do."""

    queued: dict[Shape, int] = field(default_factory=dict)
    groups: dict[str, GroupStatus] = field(default_factory=dict)
    abandoned: str | None = None


def relocate_paths(value: Any, old_root: str, new_root: str) -> Any:
    """Return a copy of a JSON value in which every string that begins with `old_root`/ begins with `new_root`/."""
    if isinstance(value, dict):
        return {key: relocate_paths(below, old_root, new_root) for key, below in value.items()}
    if isinstance(value, list):
        return [relocate_paths(below, old_root, new_root) for below in value]
    if isinstance(value, str) and value.startswith(f"{old_root}/"):
        return new_root + value.removeprefix(old_root)
    return value
