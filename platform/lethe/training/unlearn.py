"""The unlearning loop: one run on one group of ranks. No Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from lethe.config.adapter import Fila
from lethe.config.optimizer import Sophia as SophiaConfig
from lethe.config.run import Recipe
from lethe.data.batches import Step, plan, total_steps
from lethe.evaluation.evaluate import Result, Truth, evaluate
from lethe.losses import make_loss
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.training.context import Context
from lethe.training.engine import Engine
from lethe.training.memory import peak_mb, reset_peak
from lethe.training.rates import learning_rate
from lethe.training.steps import Stepper

Report = Callable[[dict[str, Any]], None]


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


@dataclass
class Outcome:
    """How a run ended: its last report with a `verdict`, the last evaluation and, if complete, the trained model."""

    report: dict[str, Any]
    result: Result | None
    model: nn.Module | None
    close: Callable[[], None]
    whole_model: Callable[[], AbstractContextManager[None]]

    def __enter__(self) -> Outcome:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Diverged(Exception):
    """A loss that is not finite: a verdict on the run, not a fault."""


@dataclass
class _Clock:
    train: float = 0.0
    evaluate: float = 0.0
    began: float = field(default_factory=time.perf_counter)


def unlearn(recipe: Recipe, context: Context, truth: Truth | None, report: Report, ranks: Ranks) -> Outcome:
    """Train as the recipe says, reporting after every evaluated epoch; every rank calls this with equal arguments.

    `truth` are the oracle's scores. Reports carry `epoch`, `optimizer_step`, every metric, the mean losses of the
    epoch, seconds, tokens and the peak memory over ranks. `report` may raise to end the run.
    """
    clock = _Clock()
    reset_peak(recipe.engine.device)
    run = _Run(recipe, context, truth, ranks, clock)
    try:
        values = run.train(report)
    except Diverged as error:
        return Outcome({**run.progress(), "verdict": "diverged", "reason": str(error)}, None, None, run.close, run.engine.gathered)
    except BaseException:
        run.close()
        raise
    return Outcome({**values, "verdict": "complete"}, run.result, run.model, run.close, run.engine.gathered)


class _Run:
    """The state of one run on one rank."""

    def __init__(self, recipe: Recipe, context: Context, truth: Truth | None, ranks: Ranks, clock: _Clock) -> None:
        self.recipe, self.context, self.truth, self.ranks, self.clock = recipe, context, truth, ranks, clock
        torch.manual_seed(recipe.seed)
        initial = context.fila_start(recipe.adapter) if isinstance(recipe.adapter, Fila) else None
        loss = make_loss(recipe.objective)
        reference = context.reference(recipe.evaluation.token_budget) if loss.needs_reference else None
        self.model = attach(context.fresh_model(), recipe.adapter, seed=recipe.seed, initial=initial)
        self.model.train()
        self.engine = Engine(ScoredLM(self.model), recipe)
        self.stepper = Stepper(
            self.engine, loss, context.forget, context.retain, reference, context.template.pad, ranks.rank, recipe.seed
        )
        self.total = total_steps(len(context.forget), recipe.schedule)
        self.result: Result | None = None
        self.steps = 0

    def train(self, report: Report) -> dict[str, Any]:
        """All steps; a report per evaluated epoch but the last, whose values are returned."""
        sums: list[torch.Tensor] = []
        for step in plan(len(self.context.forget), len(self.context.retain), self.recipe.schedule, self.recipe.seed):
            began = time.perf_counter()
            sums.append(self._step(step))
            self.clock.train += time.perf_counter() - began
            last = step.number == self.total
            due = step.ends_epoch and (last or step.epoch % self.recipe.evaluation.every == 0)
            if not due:
                continue
            values = self._measure(step, torch.stack(sums))
            sums = []
            if last:
                return values
            report(values)
        raise AssertionError("a plan has at least one step")

    def _step(self, step: Step) -> torch.Tensor:
        """Returns [forget_loss, retain_loss, coordinates that move, of these not clipped], over all ranks."""
        optimizer = self.recipe.optimizer
        second_order = isinstance(optimizer, SophiaConfig)
        if second_order and optimizer.hessian_warm_start and step.number == 1:
            self.stepper.refresh(step, optimizer.hessian_data)
        rate = learning_rate(step.number, self.total, optimizer.learning_rate, self.recipe.schedule)
        metrics = self.stepper.step(step, rate)
        self.steps = step.number
        wins = self.engine.optimizer.win_counts() if second_order else torch.zeros(2)
        shares = torch.stack([metrics["forget_loss"], metrics["retain_loss"]]).double()
        total = self.engine.sum(torch.cat([shares.cpu(), self._own_share(wins).double().cpu()]))
        if not bool(torch.isfinite(total).all()):
            raise Diverged(f"the loss is not finite at step {step.number} of {self.total}")
        if second_order and step.number % optimizer.hessian_interval == 0 and step.number < self.total:
            self.stepper.refresh(step, optimizer.hessian_data)
        return total.cpu()

    def _own_share(self, wins: torch.Tensor) -> torch.Tensor:
        """Without sharding every rank counts the same coordinates."""
        return wins if self.recipe.engine.stage > 0 else wins / self.engine.world

    def _measure(self, step: Step, sums: torch.Tensor) -> dict[str, Any]:
        began = time.perf_counter()
        # Under stage 3 a forward is a collective: every rank scores every row in lockstep.
        rank, world = (0, 1) if self.recipe.engine.stage == 3 else (self.ranks.rank, self.ranks.world)
        self.result = evaluate(
            self.model,
            self.context.eval_set(self.recipe.evaluation),
            self.recipe.evaluation,
            self.truth,
            rank=rank,
            world=world,
            gather=self.ranks.gather,
        )
        self.clock.evaluate += time.perf_counter() - began
        mean = sums.mean(0).tolist()
        moved, free = sums[:, 2].sum().item(), sums[:, 3].sum().item()
        return {
            **self.progress(),
            "epoch": step.epoch,
            "forget_loss": mean[0],
            "retain_loss": mean[1],
            **({"win_rate": free / moved} if moved else {}),
            **self.result.metrics,
        }

    def progress(self) -> dict[str, Any]:
        """What the run has cost so far."""
        seconds = [self.clock.train, self.clock.evaluate, time.perf_counter() - self.clock.began]
        peak = max(self.ranks.gather(peak_mb(self.recipe.engine.device)))
        return {
            "optimizer_step": self.steps,
            "tokens": self.stepper.tokens,
            "train_seconds": seconds[0],
            "evaluate_seconds": seconds[1],
            "seconds": seconds[2],
            "peak_memory_mb": peak,
        }

    def close(self) -> None:
        """Give the engine's memory back."""
        self.engine.close()


def finite(values: dict[str, Any]) -> bool:
    """Whether every number of a report is finite."""
    return all(math.isfinite(v) for v in values.values() if isinstance(v, float))
