"""The measurement of a timed point in a worker: its steps one by one, then the memory of one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from lethe.config.optimizer import HessianRefresh
from lethe.config.run import Recipe
from lethe.data.batches import RowKind, Step, StepRows, plan
from lethe.data.packing import pack_rows, padded_tokens
from lethe.errors import UserError
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.models.memory import peak_mb, reset_peak
from lethe.models.transformer import BatchShape, Transformer, step_flops
from lethe.records import FinalReport, Metrics
from lethe.scaling.instruments import TensorMemory, Traffic, matrix_rate
from lethe.scaling.memory import Layout, peak
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.engine import Engine
from lethe.unlearning.inputs import base_of
from lethe.unlearning.objectives.base import make_loss
from lethe.unlearning.outcome import Ranks, ReportFunction, expected_failure
from lethe.unlearning.requests import Assets, Request
from lethe.unlearning.stepper import Stepper, pack_width

WARM_UP, REFRESHES = 3, 3
MIB = 2**20


class CostPointRequest(Request):
    """The measurement of so many optimizer steps of a recipe."""

    recipe: Recipe
    assets: Assets
    steps: int


class CostPointReport(FinalReport):
    """`values` are medians over `steps`, which have the numbers of every step."""

    steps: tuple[Metrics, ...] = ()


def run_cost_point(request: CostPointRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Time the steps of one point. Entry point COST_POINT; a complete report is a `CostPointReport`.

    What the user gave and what memory lacks are verdicts of a group of one, and raised where there are peers.
    """
    recipe = request.recipe
    began = time.perf_counter()
    try:
        context = context_for(request.assets)
        reset_peak(recipe.engine.device)
        run = StepTimer(recipe, context, ranks)
        prepared = time.perf_counter() - began
        try:
            values, steps = run.measure(request.steps)
        finally:
            run.engine.close()
    except (UserError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        if ranks.world > 1:
            raise  # the other ranks wait in a collective: the group restarts, attempts are counted
        return expected_failure(error)
    values |= {"prepare_seconds": prepared, "seconds": time.perf_counter() - began}
    return CostPointReport(verdict="complete", values=values, steps=tuple(steps))


class StepTimer:
    """One engine and the steps of the unlearning loop, without evaluation."""

    def __init__(self, recipe: Recipe, context: Context, ranks: Ranks) -> None:
        self.recipe, self.context, self.ranks = recipe, context, ranks
        loss = make_loss(recipe.objective, recipe.seed)
        other = recipe.objective.needs_alternatives  # which the start model may make: before it is taken over
        refusals = context.refusals(recipe.seed, 1, alternatives=other) if RowKind.REFUSAL in loss.trains_on else None
        base = base_of(recipe, context)
        self.parameters = sum(p.numel() for p in base.parameters())  # before adapters and before stage 3 shards them
        model = attach(base, recipe.adapter, seed=recipe.seed, trains=loss.trains(base, recipe.adapter))
        self.shape = _shape(model)
        self.engine = Engine(ScoredLM(model.train(), in_parts=recipe.engine.stage < 3), recipe)
        # Any reference costs the same: the start model's own scores are not worth a pass over all forget rows.
        counts = {kind: _count(context, kind, refusals) for kind in loss.trains_on if loss.needs_start_log_probs}
        start_log_probs = {kind: torch.zeros(count) for kind, count in counts.items()}
        rows = StepRows(context.forget, context.retain, refusals)
        start = context.start if loss.needs_start else None
        self.stepper = Stepper(
            self.engine,
            loss,
            rows,
            context.template.pad,
            ranks.rank,
            recipe.seed,
            start_log_probs,
            start,
            recipe.schedule.micro_tokens,
            pack_width(model, rows, recipe.schedule),
        )
        self.traffic = Traffic()

    def measure(self, steps: int) -> tuple[Metrics, list[Metrics]]:
        """Time warm-up steps (not counted), `steps` steps and refreshes of the Hessian, then count one step's tensors.

        Returns medians with the memory model's predictions, and every step's numbers.
        """
        device, precision = self.recipe.engine.device, self.recipe.engine.precision
        plan = list(islice(self._plan(), WARM_UP + steps))
        rates = [matrix_rate(device, precision)]
        for step in plan[:WARM_UP]:
            self._timed(step)
        done = [self._timed(step) for step in plan[WARM_UP:]]
        refreshes = [self._timed(step, refresh=True) for step in plan[-REFRESHES:]] if self._refresh else []
        rates.append(matrix_rate(device, precision))
        with TensorMemory() as tensors:
            self._step(plan[-1])
        values = summary(done, refreshes, self._refresh.interval if self._refresh else 0)
        metrics = {
            **values,
            **self._model_predictions(plan[WARM_UP:], values, statistics.median(rates)),
            "step_tensors_mb": max(self.ranks.gather(tensors.peak)) / MIB,
            "peak_memory_mb": max(self.ranks.gather(peak_mb(device))),
            "matrix_rate": statistics.median(rates),
            "parameters": float(self.parameters),
        }
        return metrics, done

    @property
    def _refresh(self) -> HessianRefresh | None:
        return self.recipe.optimizer.hessian_refresh

    def _plan(self) -> Iterator[Step]:
        schedule = self.recipe.schedule.model_copy(update={"epochs": 10_000, "max_steps": None})
        # Rows that answer with refusals are drawn for the first epoch: it repeats.
        for step in plan(len(self.context.forget), len(self.context.retain), schedule, self.recipe.seed):
            if len(step.pairs) == min(schedule.batch_size, len(self.context.forget)):
                yield Step(1, step.number, step.pairs, step.ends_epoch)

    def _timed(self, step: Step, *, refresh: bool = False) -> dict[str, float]:
        """Run one step or refresh; return its wall-clock, CPU and collective seconds, collective bytes and tokens."""
        wait: Callable[[], None] = torch.cuda.synchronize if self.recipe.engine.device == "cuda" else lambda: None
        if self.ranks.world > 1:
            dist.barrier()
        wait()
        self.traffic.reset()
        tokens, wall, cpu = self.stepper.tokens, time.perf_counter(), time.process_time()
        with self.traffic.watched():
            if refresh:
                assert self._refresh is not None
                self.stepper.refresh(step, self._refresh.data)
            else:
                self._step(step)
        wait()
        return {
            "wall_seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "communication_seconds": self.traffic.seconds,
            "communication_bytes": float(self.traffic.bytes),
            "tokens": float(self.stepper.tokens - tokens),
        }

    def _step(self, step: Step) -> None:
        self.stepper.step(step, self.recipe.optimizer.learning_rate)

    def _model_predictions(self, steps: list[Step], values: dict[str, float], rate: float) -> dict[str, float]:
        """Return FLOPs, utilisation and the memory model's predictions; empty for a shape that it does not know."""
        if self.shape is None:
            return {}
        layout = Layout.of(self.recipe)
        passes = self.recipe.optimizer.passes
        flops = statistics.median(
            step_flops(self.shape, self._batch([step]), layout.rank, passes=passes) for step in steps
        )
        own = [s for step in steps for s in self._own_micro_batches(step)]
        seconds = values["step_seconds" if self.recipe.engine.device == "cuda" else "step_cpu_seconds"]
        predicted = peak(self.shape, layout, self._largest_batch(own))
        last = peak(self.shape, layout, self._largest_batch(self._own_micro_batches(steps[-1])))  # of this rank's rows
        return {
            "flops": flops,
            "utilisation": flops / self.ranks.world / seconds / rate,
            "states_mb": predicted.states.total / MIB,
            "predicted_step_mb": max(self.ranks.gather(last.step)) / MIB,
            "predicted_peak_mb": predicted.total / MIB,
        }

    def _largest_batch(self, micro_batches: list[Step]) -> BatchShape:
        return max((self._batch([micro]) for micro in micro_batches), key=lambda batch: batch.padded)

    def _own_micro_batches(self, step: Step) -> list[Step]:
        parts = self.stepper.micro_batches(step, self.stepper.loss.trains_on)
        return [Step(step.epoch, step.number, part, False) for part in parts if part]

    def _batch(self, steps: list[Step]) -> BatchShape:
        """Return the shape of the rows that these steps put through the trained model."""
        kinds = self.stepper.loss.trains_on
        rows = [
            row for step in steps for kind in kinds for _, row in self.stepper.rows.of(kind, step.pairs, step.epoch)
        ]
        lengths = [len(row.ids) for row in rows]
        scored = sum(len(row.ids) - row.prompt_length for row in rows)
        padded = padded_tokens(pack_rows(lengths, self.stepper.pack_for), lengths)
        return BatchShape(len(rows), sum(lengths), scored, sum(n * n for n in lengths), padded)


def summary(steps: list[dict[str, float]], refreshes: list[dict[str, float]], interval: int) -> dict[str, float]:
    """Return medians over steps; a refresh's median is spread over the `interval` steps between two refreshes."""

    def median(key: str, of: list[dict[str, float]]) -> float:
        return statistics.median(step[key] for step in of)

    medians = {key: median(key, steps) for key in steps[0]}
    extra = {key: median(key, refreshes) / interval for key in steps[0]} if refreshes else dict.fromkeys(medians, 0.0)
    wall, cpu = (medians[key] + extra[key] for key in ("wall_seconds", "cpu_seconds"))
    return {
        "step_seconds": wall,
        "step_cpu_seconds": cpu,
        "refresh_share": extra["cpu_seconds"] / cpu if cpu else 0.0,
        "communication_share": (medians["communication_seconds"] + extra["communication_seconds"]) / wall,
        "communication_mb": medians["communication_bytes"] / MIB,
        "tokens": medians["tokens"],
        "tokens_per_second": medians["tokens"] / wall,
        "busy": cpu / wall,
    }


def _shape(model: Any) -> Transformer | None:
    try:
        return Transformer.of_config(model.config.to_dict())
    except UserError:
        return None


def _count(context: Context, kind: RowKind, refusals: Any) -> int:
    return {RowKind.FORGET: len(context.forget), RowKind.RETAIN: len(context.retain)}.get(kind) or len(refusals.rows)
