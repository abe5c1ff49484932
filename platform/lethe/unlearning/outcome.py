"""The interface of every unlearning method: ranks, reports, costs and an outcome; and the verdict that an exception in
a worker gives its run."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from lethe.benchmarks.base import EvaluationResult, ReferenceValues
from lethe.config.run import Engine, Evaluation
from lethe.data.template import Template
from lethe.errors import UserError, first_line
from lethe.models.memory import peak_mb, reset_peak
from lethe.records import FinalReport, Metrics, Verdict

T = TypeVar("T")
ReportFunction = Callable[[Metrics], None]  # sends the values of an epoch; may raise to end the run


class Ranks(Protocol):
    """This process among its peers; `lethe.pool.worker.Ranks` on Ray, `Alone` elsewhere."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def world(self) -> int:
        """The number of processes."""

    def gather(self, value: T) -> list[T]:
        """Return every rank's value on every rank, by rank."""

    @property
    def progressed(self) -> Callable[[int, int], None]:
        """A function that takes the number of the step that is done and of all steps: cheap, to be called at each."""


@dataclass(frozen=True)
class Alone:
    """One process, no peers."""

    rank: int = 0
    world: int = 1

    def gather(self, value: T) -> list[T]:
        """Return the one value there is."""
        return [value]

    def progressed(self, step: int, total: int) -> None:
        """Do nothing: nobody waits elsewhere."""


@dataclass(frozen=True)
class Measure:
    """What a run is evaluated with, the last time or before, and the values to compare with, which belong to the same
    rows."""

    evaluation: Evaluation
    reference: ReferenceValues | None


class DivergedError(Exception):
    """A loss or a weight that is not finite: a verdict on the run, not a fault."""


@dataclass
class Outcome:
    """The end of a run: its last report, the last evaluation and, if complete, the trained model.

    A context: `close` is called when it is left. Inside `whole_model` every rank's `model` has whole tensors.
    `template`: how the model was asked, where that is not as the context's other models are.
    """

    report: FinalReport
    result: EvaluationResult | None = None
    model: nn.Module | None = None
    close: Callable[[], None] = lambda: None
    whole_model: Callable[[], AbstractContextManager[None]] = nullcontext
    template: Template | None = None

    def __enter__(self) -> Outcome:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Costs:
    """The costs of a run so far, under the names that every method reports. A new one begins a new peak of memory."""

    engine: Engine
    ranks: Ranks
    steps: int = 0
    tokens: int = 0
    elsewhere_mb: float = 0.0  # peak memory of a process that the run started
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0})
    _began: float = field(default_factory=time.perf_counter)
    _cpu_began: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        reset_peak(self.engine.device)

    @contextmanager
    def timed(self, what: Literal["train", "evaluate"]) -> Iterator[None]:
        """Add the block's wall-clock seconds to those of `what`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - began

    def report(self) -> Metrics:
        """Return the costs so far, by metric. Every rank calls this: the peak is the largest of any process,
        `cpu_seconds` the processor time of all of them."""
        return {
            "optimizer_step": self.steps,
            "tokens": self.tokens,
            "train_seconds": self.seconds["train"],
            "evaluate_seconds": self.seconds["evaluate"],
            "seconds": time.perf_counter() - self._began,
            "cpu_seconds": sum(self.ranks.gather(time.process_time() - self._cpu_began)),
            "peak_memory_mb": max(self.elsewhere_mb, *self.ranks.gather(peak_mb(self.engine.device))),
        }

    def go_on(self, spent: Metrics) -> None:
        """Add the costs that an earlier attempt reported when it left the state that this one continues."""
        self.steps, self.tokens = int(spent["optimizer_step"]), int(spent["tokens"])
        for what in self.seconds:
            self.seconds[what] += spent[f"{what}_seconds"]
        self._began -= spent["seconds"]
        self._cpu_began -= spent.get("cpu_seconds", 0.0) / self.ranks.world  # not in earlier checkpoints
        self.elsewhere_mb = max(self.elsewhere_mb, spent["peak_memory_mb"])


class Failure(NamedTuple):
    """The end of an attempt. `lost` and `interrupted` are tried again; any other verdict would come out the same."""

    verdict: Verdict
    reason: str


def classify_failure(error: Exception, world: int) -> Failure:
    """Return what an error that ended a run on one of `world` ranks means: a result, or that this attempt failed.

    Call it while `error` is handled: the reason may be its traceback.
    """
    line = first_line(error)
    if is_io(error):
        return Failure("interrupted", f"{type(error).__name__}: {line}")
    if isinstance(error, UserError):
        return Failure("infeasible", line)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in line:
        return Failure("out_of_memory", line)
    # With peers, torch and gloo say that one vanished by a RuntimeError of no particular type.
    if world > 1 and isinstance(error, RuntimeError):
        return Failure("lost", f"{type(error).__name__}: {line}")
    return Failure("error", traceback.format_exc(limit=-3))


def expected_failure(error: Exception) -> FinalReport:
    """Return the report of a run that ended with UserError, or without memory, in a group of one rank."""
    verdict: Verdict = "infeasible" if isinstance(error, UserError) else "out_of_memory"
    return FinalReport(verdict=verdict, reason=str(error).splitlines()[0] if str(error) else verdict)


def is_io(error: BaseException) -> bool:
    """Return whether a disk, a file or a connection failed. `lethe.storage.paths` makes a UserError of that,
    safetensors an error of its own."""
    if isinstance(error, UserError):
        return isinstance(error.__context__, OSError)
    return isinstance(error, OSError) or (isinstance(error, SafetensorError) and "os error" in str(error))
