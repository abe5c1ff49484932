"""What an exception in a worker says about its run: a result, or only that this attempt came to nothing.

What every method of unlearning is given and gives back: peers, reports, costs, an outcome.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from lethe.benchmarks.base import EvaluationResult
from lethe.config.run import Engine
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.memory import peak_mb, reset_peak
from lethe.records import Verdict
from safetensors import SafetensorError
from torch import nn


class Failure(NamedTuple):
    """`lost` and `interrupted` are tried again; any other verdict would come out the same."""

    verdict: Verdict
    reason: str


def classify_failure(error: Exception, world: int) -> Failure:
    """Call it while `error` is handled. `world`: ranks of the group."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
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


def is_io(error: BaseException) -> bool:
    """Whether a disk, a file or a connection failed; `lethe.storage.paths` makes BadInput of it, safetensors its own error."""
    if isinstance(error, UserError):
        return isinstance(error.__context__, OSError)
    return isinstance(error, OSError) or (isinstance(error, SafetensorError) and "os error" in str(error))


ReportFunction = Callable[[dict[str, Any]], None]


class Ranks(Protocol):
    """This process among its peers; `lethe.pool.worker.Ranks` on Ray, `Alone` elsewhere."""

    rank: int
    world: int

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank."""


@dataclass(frozen=True)
class Alone:
    """One process, no peers."""

    rank: int = 0
    world: int = 1

    def gather(self, value: Any) -> list[Any]:
        """The one value there is."""
        return [value]


class Diverged(Exception):
    """A loss or a weight that is not finite: a verdict on the run, not a fault."""


@dataclass
class Outcome:
    """How a run ended: its last report with a `verdict`, the last evaluation and, if complete, the trained model.

    `template`: how the model was asked, where that is not as the context's other models are.
    """

    report: dict[str, Any]
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
    """What a run has cost so far, under the names that every method reports. A new one begins a new peak of memory."""

    engine: Engine
    ranks: Ranks
    steps: int = 0
    tokens: int = 0
    elsewhere_mb: float = 0.0  # peak memory of a process that the run started
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0})
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        reset_peak(self.engine.device)

    @contextmanager
    def timed(self, what: Literal["train", "evaluate"]) -> Iterator[None]:
        """Count the block's wall-clock seconds."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - began

    def report(self) -> dict[str, Any]:
        """Every rank calls this: the peak is the largest of any process."""
        return {
            "optimizer_step": self.steps,
            "tokens": self.tokens,
            "train_seconds": self.seconds["train"],
            "evaluate_seconds": self.seconds["evaluate"],
            "seconds": time.perf_counter() - self._began,
            "peak_memory_mb": max(self.elsewhere_mb, *self.ranks.gather(peak_mb(self.engine.device))),
        }

    def go_on(self, spent: dict[str, Any]) -> None:
        """Add what an earlier attempt had spent, by its `report`, when it left the state that this one continues."""
        self.steps, self.tokens = spent["optimizer_step"], spent["tokens"]
        for what in self.seconds:
            self.seconds[what] += spent[f"{what}_seconds"]
        self._began -= spent["seconds"]
        self.elsewhere_mb = max(self.elsewhere_mb, spent["peak_memory_mb"])
