"""The unlearning loop: one run on one group of ranks. No Ray."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lethe.config.adapter import Pissa
from lethe.config.optimizer import Sophia as SophiaConfig
from lethe.config.run import Recipe
from lethe.data.batches import Kind, Rows, Step, plan, total_epochs, total_steps
from lethe.evaluation.sharing import Share
from lethe.evaluation.task import AnyResult, AnyTruth
from lethe.losses import Loss, make_loss
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.training.checkpoint import Checkpoints, random_state, restore_random_state
from lethe.training.context import Context
from lethe.training.engine import Engine
from lethe.training.outcome import Costs, Diverged, Outcome, Ranks, Report
from lethe.training.rates import learning_rate
from lethe.training.shards import refreshes, restore, shards
from lethe.training.steps import Stepper


def unlearn(
    recipe: Recipe,
    context: Context,
    truth: AnyTruth,
    report: Report,
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
    loss: Loss | None = None,
) -> Outcome:
    """Train as the recipe says, reporting after every evaluated epoch; every rank calls this with equal arguments.

    `truth` is what the benchmark compares with: the oracle's scores, or thresholds. Reports carry `epoch`,
    `optimizer_step`, every metric, the mean losses of the epoch, seconds, tokens, the peak memory over ranks and the
    share of parameters that is trained. `report` may raise to end the run. `loss` stands in for the objective's own.
    Where `checkpoints` has one the run goes on from there: it repeats the reports that were made and ends with the
    weights and numbers of a run that was never interrupted, costs apart.
    """
    loss = loss or make_loss(recipe.objective)
    run = _Run(recipe, context, truth, ranks, checkpoints or Checkpoints.none(ranks), loss)
    try:
        values = run.train(report)
    except Diverged as error:
        return Outcome({**run.costs.report(), "verdict": "diverged", "reason": str(error)}, close=run.close)
    except BaseException:
        run.close()
        raise
    return Outcome({**values, "verdict": "complete"}, run.result, run.model, run.close, run.engine.gathered)


class _Run:
    """The state of one run on one rank."""

    def __init__(
        self, recipe: Recipe, context: Context, truth: AnyTruth, ranks: Ranks, checkpoints: Checkpoints, loss: Loss
    ) -> None:
        self.recipe, self.context, self.truth, self.ranks = recipe, context, truth, ranks
        self.checkpoints = checkpoints
        self.costs = Costs(recipe.engine, ranks)
        torch.manual_seed(recipe.seed)
        initial = context.initial(recipe.adapter) if isinstance(recipe.adapter, Pissa) else None
        rows, references = _rows(recipe, context, loss)
        self.model = attach(context.fresh_model(), recipe.adapter, seed=recipe.seed, initial=initial)
        self.model.train()
        self.trained_share = _trained_share(self.model)  # before the engine shards it
        self.engine = Engine(ScoredLM(self.model), recipe)
        self.stepper = Stepper(
            self.engine,
            loss,
            rows,
            context.template.pad,
            ranks.rank,
            recipe.seed,
            references,
            context.start if loss.needs_start_logits else None,
        )
        self.total = total_steps(len(context.forget), recipe.schedule)
        self.result: AnyResult | None = None
        self.forgotten_at: int | None = None  # epoch
        self.done = 0  # steps
        self.sums: list[torch.Tensor] = []  # of the steps since the last report
        self.reports: list[dict[str, Any]] = []

    def train(self, report: Report) -> dict[str, Any]:
        """All steps that remain; a report per evaluated epoch but the last, whose values are returned."""
        self._resume()
        for values in self.reports:
            report(values)
        for step in plan(len(self.context.forget), len(self.context.retain), self.recipe.schedule, self.recipe.seed):
            if step.number <= self.done:
                continue
            with self.costs.timed("train"):
                total = self._step(step)
            self.done = step.number
            self.sums.append(total[:-1])
            wanted, last = bool(total[-1]), step.number == self.total
            due = step.ends_epoch and (last or step.epoch % self.recipe.evaluation.every == 0)
            if due:
                values = self._measure(step, torch.stack(self.sums), last)
                if last or (self.forgotten_at and self.context.until_forgotten):
                    return values
                self.sums = []
                self.reports.append(values)
            if wanted or (due and self.checkpoints.rule.at_reports):
                self._save()
            if due:
                report(values)
        raise AssertionError("a plan has at least one step")

    def _save(self) -> None:
        sums = {"sums": torch.stack(self.sums)} if self.sums else {}
        state = {
            "reports": self.reports,
            "spent": self.costs.report(),
            "losses": self.losses,
            "forgotten_at": self.forgotten_at,
            "stepper": {"refreshes": self.stepper.refreshes, "tokens": self.stepper.tokens},
            "optimizer": refreshes(self.engine),
        }
        tensors = {**shards(self.engine), **random_state(self.engine.device), **sums}
        self.checkpoints.save(self.done, tensors, state)

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = self.checkpoints.load()
        if found is None:
            return
        tensors, state = found
        restore_random_state(tensors, self.engine.device)
        self.sums = list(tensors.pop("sums", ()))
        restore(self.engine, tensors, state["optimizer"])
        self.done, self.reports, self.losses = state["step"], state["reports"], tuple(state["losses"])
        self.forgotten_at = state["forgotten_at"]
        self.stepper.refreshes, self.stepper.tokens = state["stepper"]["refreshes"], state["stepper"]["tokens"]
        self.costs.go_on(state["spent"])

    def _step(self, step: Step) -> torch.Tensor:
        """Returns the loss terms, [coordinates that move, of these not clipped], and whether a checkpoint is due: over
        all ranks."""
        optimizer = self.recipe.optimizer
        second_order = isinstance(optimizer, SophiaConfig)
        sampled = second_order and optimizer.hessian == "gnb"
        if sampled and optimizer.hessian_warm_start and step.number == 1:
            self._refresh(step, optimizer.hessian_data)
        rate = learning_rate(step.number, self.total, optimizer.learning_rate, self.recipe.schedule)
        metrics, norm = self.stepper.step(step, rate)
        self.costs.steps, self.costs.tokens = step.number, self.stepper.tokens
        wins = self.engine.optimizer.win_counts() if second_order else torch.zeros(2)
        self.losses = tuple(metrics)
        shares = map(float, [*metrics.values(), *self._own_share(wins), self.checkpoints.due(step.number), norm])
        total = self.engine.sum(torch.tensor([*shares], dtype=torch.float64))
        if not bool(torch.isfinite(total).all()):
            culprit = "gradient" if bool(torch.isfinite(total[:-1]).all()) else "loss"
            raise Diverged(f"the {culprit} is not finite at step {step.number} of {self.total}")
        if sampled and step.number % optimizer.hessian_interval == 0 and step.number < self.total:
            self._refresh(step, optimizer.hessian_data)
        return total[:-1].cpu()

    def _refresh(self, step: Step, data: str) -> None:
        if not math.isfinite(self.stepper.refresh(step, data)):
            raise Diverged(f"the gradient of the sampled loss is not finite at step {step.number} of {self.total}")

    def _own_share(self, wins: torch.Tensor) -> torch.Tensor:
        """Without sharding every rank counts the same coordinates."""
        return wins if self.recipe.engine.stage > 0 else wins / self.engine.world

    def _measure(self, step: Step, sums: torch.Tensor, last: bool) -> dict[str, Any]:
        # Under stage 3 a forward is a collective: every rank scores every row in lockstep.
        rank, world = (0, 1) if self.recipe.engine.stage == 3 else (self.ranks.rank, self.ranks.world)
        with self.costs.timed("evaluate"):
            evals, share = self.context.eval_set(self.recipe.evaluation), Share(rank, world, self.ranks.gather)
            self.result = self.context.task.evaluate(
                self.model, evals, self.recipe.evaluation, self.truth, share, last=last
            )
        if not self.result.finite:  # metrics are finite whatever the model gives
            raise Diverged(f"the model's likelihoods are not finite after step {step.number} of {self.total}")
        moved, free = sums[:, -2:].sum(0).tolist()
        return {
            **self.costs.report(),
            "epoch": step.epoch,
            **dict(zip(self.losses, sums.mean(0).tolist())),
            **({"win_rate": free / moved} if moved else {}),
            "trained_share": self.trained_share,
            **self._criterion(self.result, step.epoch),
            **self.result.metrics,
        }

    def _criterion(self, result: AnyResult, epoch: int) -> dict[str, int]:
        """When the benchmark's criterion first held; how long it has not, if it never did."""
        if result.forgotten and self.forgotten_at is None:
            self.forgotten_at = epoch
        return {} if result.forgotten is None else {"epochs_to_criterion": self.forgotten_at or epoch}

    def close(self) -> None:
        """Give the engine's memory back."""
        self.engine.close()


def _trained_share(model: nn.Module) -> float:
    """Trainable parameters over all, adapters included."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)


def _rows(recipe: Recipe, context: Context, loss: Loss) -> tuple[Rows, dict[Kind, torch.Tensor]]:
    """What the run trains on, and S0 of it where the loss needs that. Raises BadInput where refusals are missing."""
    epochs, budget = total_epochs(len(context.forget), recipe.schedule), recipe.evaluation.token_budget
    refusals = context.refusals(recipe.seed, epochs) if Kind.REFUSAL in loss.trains_on else None
    references = {Kind.FORGET: context.reference(budget)} if loss.needs_reference else {}
    if refusals and loss.needs_reference:
        references[Kind.REFUSAL] = context.refusal_reference(recipe.seed, epochs, budget)
    return Rows(context.forget, context.retain, refusals), references
