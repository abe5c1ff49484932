"""The training loop of all objectives with a loss: one run on one group of ranks, from its recipe to its outcome.

`unlearn` is the loop, `learning_rate` the schedule; `lethe.unlearning.stepper` takes the steps. Knows nothing of Ray.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lethe.benchmarks.base import EvaluationResult, ReferenceValues
from lethe.config.adapter import FullParameters, Pissa
from lethe.config.optimizer import HessianData
from lethe.config.run import Recipe, Schedule
from lethe.data.batches import Step, plan, total_steps
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.models.adapters import WithoutAdapters, attach, without_adapters
from lethe.models.dropout import disable_dropout
from lethe.models.forward import ScoredLM
from lethe.models.memory import give_back
from lethe.models.quantised import numel
from lethe.records import EVALUATED_SHARE, FinalReport, Metrics
from lethe.unlearning.checkpoint import (
    Checkpoints,
    RunState,
    StepperState,
    random_state,
    refreshes,
    restore,
    restore_random_state,
    shards,
)
from lethe.unlearning.context import Context
from lethe.unlearning.engine import Engine
from lethe.unlearning.inputs import base_of, rows_of, start_log_probs_of
from lethe.unlearning.objectives.base import Loss, make_loss
from lethe.unlearning.outcome import Costs, DivergedError, Measure, Outcome, Ranks, ReportFunction
from lethe.unlearning.stepper import Stepper, pack_width


def unlearn(
    recipe: Recipe,
    context: Context,
    reference: ReferenceValues | None,
    report: ReportFunction,
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
    loss: Loss | None = None,
    target_loss: float = 0.0,
    interim: Measure | None = None,
) -> Outcome:
    """Train as the recipe says and report after every evaluated epoch; every rank calls this with equal arguments.

    Returns the outcome: complete with model, last report and evaluation, or diverged. `reference` is what the benchmark
    compares with: the oracle's scores, or thresholds. Reports carry `epoch`, `optimizer_step`, every metric, the mean
    losses of the epoch, seconds, tokens, the peak memory over ranks and the share of parameters that is trained.
    `report` may raise to end the run. `loss` replaces the objective's own; an evaluated epoch in which the mean of its
    forget term is at most `target_loss` is the last one, unless that is 0. Where `checkpoints` has one the run goes on
    from there: it repeats the reports that were made and ends with the weights and numbers of a run that was never
    interrupted, costs apart. With `interim`, for a run without a target, evaluations before the last read its share of
    the rows; a report says what share it was, `evaluated_share`.
    """
    loss = loss or make_loss(recipe.objective, recipe.seed)
    run = _Run(recipe, context, reference, ranks, checkpoints or Checkpoints.none(ranks), loss, target_loss, interim)
    try:
        values = run.train(report)
    except DivergedError as error:
        last = FinalReport(verdict="diverged", reason=str(error), values=run.costs.report())
        return Outcome(last, close=run.close)
    except BaseException:  # Ctrl-C, too: the engine's memory is given back
        run.close()
        raise
    last = FinalReport(verdict="complete", values=values)
    return Outcome(last, run.result, run.model, run.close, run.engine.gathered)


class _Run:
    """The state of one run on one rank."""

    def __init__(
        self,
        recipe: Recipe,
        context: Context,
        reference: ReferenceValues | None,
        ranks: Ranks,
        checkpoints: Checkpoints,
        loss: Loss,
        target_loss: float,
        interim: Measure | None,
    ) -> None:
        assert not (interim and target_loss)  # which epoch is the last is known after its loss
        self.target_loss, self.interim = target_loss, interim
        self.recipe, self.context, self.reference, self.ranks = recipe, context, reference, ranks
        self.checkpoints = checkpoints
        self.costs = Costs(recipe.engine, ranks)
        torch.manual_seed(recipe.seed)
        initial = context.initial(recipe.adapter) if isinstance(recipe.adapter, Pissa) else None
        sharded = recipe.engine.stage == 3
        rows = rows_of(recipe, context, loss)
        start_log_probs = {} if sharded else start_log_probs_of(recipe, context, loss)
        base = base_of(recipe, context)
        trains = loss.trains(base, recipe.adapter)
        self.model = attach(base, recipe.adapter, seed=recipe.seed, initial=initial, trains=trains)
        self.model.train()
        if not recipe.schedule.dropout:
            disable_dropout(self.model)
        self.trained_share = _trained_share(self.model)  # before the engine shards it
        self.engine = Engine(ScoredLM(self.model, in_parts=recipe.engine.stage < 3), recipe)
        if sharded:  # no rank holds the start model: until the first step, the model is it
            with evaluating(self.model), without_adapters(self.model):
                start_log_probs = start_log_probs_of(recipe, context, loss, self.model)
        self.stepper = Stepper(
            self.engine,
            loss,
            rows,
            context.template.pad,
            ranks.rank,
            recipe.seed,
            start_log_probs,
            self._start() if loss.needs_start else None,
            recipe.schedule.micro_tokens,
            pack_width(self.model, rows, recipe.schedule),
        )
        self.total = total_steps(len(context.forget), recipe.schedule)
        self.result: EvaluationResult | None = None
        self.forgotten_at: int | None = None  # epoch
        self.steps_done = 0
        self.loss_names: tuple[str, ...] = ()
        self.sums: list[torch.Tensor] = []  # per step since the last report: loss terms and win counts
        self.reports: list[Metrics] = []

    def _start(self) -> nn.Module:
        """Return the start model, which under stage 3 is the sharded base of the adapters."""
        if self.recipe.engine.stage == 3 and not isinstance(self.recipe.adapter, FullParameters):
            return WithoutAdapters(self.model)
        return self.context.start

    def train(self, report: ReportFunction) -> Metrics:
        """Take all steps that remain and report every evaluated epoch but the last, whose values are returned."""
        self._resume()
        for values in self.reports:
            report(values)
        for step in plan(len(self.context.forget), len(self.context.retain), self.recipe.schedule, self.recipe.seed):
            if step.number <= self.steps_done:
                continue
            with self.costs.timed("train"):
                sums, checkpoint_due = self._step(step)
            self.steps_done = step.number
            self.ranks.progressed(step.number, self.total)
            self.sums.append(sums)
            last = step.number == self.total
            report_due = step.ends_epoch and (last or step.epoch % self.recipe.evaluation.every == 0)
            if report_due:
                values = self._measure(step, torch.stack(self.sums), last)
                if last or (self.forgotten_at and self.context.until_forgotten) or self._learned(values):
                    return values
                self.sums = []
                self.reports.append(values)
            if checkpoint_due or (report_due and self.checkpoints.rule.at_reports):
                self._save()
            if report_due:
                report(values)
        raise AssertionError("a plan has at least one step")

    def _save(self) -> None:
        sums = {"sums": torch.stack(self.sums)} if self.sums else {}
        state = RunState(
            reports=tuple(self.reports),
            spent=self.costs.report(),
            losses=self.loss_names,
            forgotten_at=self.forgotten_at,
            stepper=StepperState(self.stepper.refreshes, self.stepper.tokens),
            optimizer=tuple(refreshes(self.engine)),
            objective=self._changing(),
        )
        tensors = {**shards(self.engine), **random_state(self.engine.device), **sums}
        self.checkpoints.save(self.steps_done, tensors, state)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            return
        tensors, manifest = checkpoint
        state = manifest.state
        restore_random_state(tensors, self.engine.device)
        self.sums = list(tensors.pop("sums", ()))
        restore(self.engine, tensors, state.optimizer)
        self.steps_done, self.reports, self.loss_names = manifest.step, list(state.reports), state.losses
        self.forgotten_at = state.forgotten_at
        self.stepper.refreshes, self.stepper.tokens = state.stepper.refreshes, state.stepper.tokens
        for name, value in state.objective.items():
            setattr(self.stepper.loss, name, value)
        self.costs.go_on(state.spent)

    def _changing(self) -> dict[str, float]:
        """Return the numbers of the loss that change between steps."""
        return {name: getattr(self.stepper.loss, name) for name in self.stepper.loss.changing}

    def _step(self, step: Step) -> tuple[torch.Tensor, bool]:
        """Take one step with the Hessian refreshes around it. Returns the loss terms with [coordinates that move, of
        these not clipped] behind them, over all ranks, and whether a checkpoint is due."""
        refresh = self.recipe.optimizer.hessian_refresh
        if refresh and refresh.warm_start and step.number == 1:
            self._refresh(step, refresh.data)
        rate = learning_rate(step.number, self.total, self.recipe.optimizer.learning_rate, self.recipe.schedule)
        metrics, norm = self.stepper.step(step, rate)
        self.costs.steps, self.costs.tokens = step.number, self.stepper.tokens
        wins = self._own_share(self.engine.win_counts())
        self.loss_names = tuple(metrics)
        shares = map(float, [*metrics.values(), *wins, self.checkpoints.due(step.number), norm])
        total = self.engine.sum(torch.tensor([*shares], dtype=torch.float64))
        if not bool(torch.isfinite(total).all()):
            culprit = "gradient" if bool(torch.isfinite(total[:-1]).all()) else "loss"
            raise DivergedError(f"the {culprit} is not finite at step {step.number} of {self.total}")
        self.stepper.loss.after_step(dict(zip(metrics, total.tolist(), strict=False)), step.epoch)
        if refresh and step.number % refresh.interval == 0 and step.number < self.total:
            self._refresh(step, refresh.data)
        return total[:-2].cpu(), bool(total[-2])

    def _refresh(self, step: Step, data: HessianData) -> None:
        if not math.isfinite(self.stepper.refresh(step, data)):
            raise DivergedError(f"the gradient of the sampled loss is not finite at step {step.number} of {self.total}")

    def _own_share(self, wins: torch.Tensor) -> torch.Tensor:
        """Return this rank's part of the counts: without sharding every rank counts the same coordinates."""
        return wins if self.recipe.engine.stage > 0 else wins / self.engine.world

    def _measure(self, step: Step, sums: torch.Tensor, last: bool) -> Metrics:
        """Evaluate the model and return the report of this epoch. Raises DivergedError."""
        give_back(self.recipe.engine.device)  # what the steps' activations held
        with self.costs.timed("evaluate"):
            share = self._evaluate(last)
        assert self.result is not None
        if not self.result.finite:  # metrics are finite whatever the model gives
            raise DivergedError(f"the model's likelihoods are not finite after step {step.number} of {self.total}")
        moved, free = sums[:, -2:].sum(0).tolist()
        return {
            **self.costs.report(),
            "epoch": step.epoch,
            **dict(zip(self.loss_names, sums.mean(0).tolist(), strict=False)),
            **({"win_rate": free / moved} if moved else {}),
            **self._changing(),
            "trained_share": self.trained_share,
            **self._criterion(self.result, step.epoch),
            **self.result.metrics,
            **({EVALUATED_SHARE: share} if self.interim else {}),
        }

    def _evaluate(self, last: bool) -> float:
        """Make the `result` of the model as it is, and return the share of the rows that it is of. Before the last
        epoch all are read only where the benchmark's criterion may hold for the first time, by which a run may end."""
        whole = Measure(self.recipe.evaluation, self.reference)
        made = whole if last or self.interim is None else self.interim
        self.result = self._result(made, last)
        if made.evaluation.share < 1 and not last and self.result.forgotten and self.forgotten_at is None:
            made, self.result = whole, self._result(whole, last=True)
        return made.evaluation.share / whole.evaluation.share

    def _result(self, measure: Measure, last: bool) -> EvaluationResult:
        # Under stage 3 a forward is a collective: every rank scores every row in lockstep.
        rank, world = (0, 1) if self.recipe.engine.stage == 3 else (self.ranks.rank, self.ranks.world)
        config, shard = measure.evaluation, RankShard(rank, world, self.ranks.gather)
        evals = self.context.eval_set(config)
        return self.context.task.evaluate(self.model, evals, config, measure.reference, shard, last=last)

    def _criterion(self, result: EvaluationResult, epoch: int) -> dict[str, int]:
        """Return the epoch in which the benchmark's criterion first held, or the present one while it has not; nothing
        for a benchmark without a criterion."""
        if result.forgotten and self.forgotten_at is None:
            self.forgotten_at = epoch
        return {} if result.forgotten is None else {"epochs_to_criterion": self.forgotten_at or epoch}

    def _learned(self, values: Metrics) -> bool:
        """Return whether the epoch's mean loss has reached the target."""
        return values["forget_loss"] <= self.target_loss if self.target_loss else False

    def close(self) -> None:
        """Give the engine's memory back."""
        self.engine.close()


def _trained_share(model: nn.Module) -> float:
    """Return the number of trainable parameters over that of all, adapters included."""
    sizes = [(numel(p), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)


def learning_rate(step: int, total: int, peak: float, schedule: Schedule) -> float:
    """Return the rate of optimizer step `step` in 1..total: linear warm-up to `peak`, then linear decay to zero.

    The last step of a decay still moves: its rate is peak / (total - warmup).
    """
    warmup = int(schedule.warmup * total)
    if step <= warmup:
        return peak * step / warmup
    if not schedule.decay:
        return peak
    return peak * (total - step + 1) / (total - warmup)
