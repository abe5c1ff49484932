"""Exact unlearning: the start model's own training, again and without the forget rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

import torch.distributed as dist

from lethe.benchmarks.base import ReferenceValues
from lethe.benchmarks.embedded.models import train_anew
from lethe.config.adapter import FullParameters
from lethe.config.model import EmbeddedModel
from lethe.config.objective import Retrain
from lethe.config.run import Recipe
from lethe.errors import UserError
from lethe.models.loading import load_model
from lethe.records import Metrics
from lethe.storage.replica import local_path
from lethe.unlearning.checkpoint import Checkpoints
from lethe.unlearning.context import Context
from lethe.unlearning.finetuning import Descent, training_context
from lethe.unlearning.methods.base import METHODS, SingleRun
from lethe.unlearning.outcome import Outcome, Ranks, ReportFunction
from lethe.unlearning.trainer import unlearn

HEARTBEAT_S = 20.0  # between two collectives of the ranks while rank 0 works

T = TypeVar("T")


@METHODS.implements(Retrain)
def retrain(
    recipe: Recipe,
    context: Context,
    reference: ReferenceValues | None,
    report: ReportFunction,
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Train from `assets.origin` on the retain rows; nothing is taken from a cache.

    An epoch is one pass over the rows trained on. Raises UserError where it is unknown what the start model was made
    from.
    """
    origin = context.assets.origin
    if origin is None:
        raise UserError("retrain needs model.base, the checkpoint that model.path was made from")
    if isinstance(origin, EmbeddedModel):
        return _embedded(origin, SingleRun(recipe, context, reference, ranks))
    return _from_base(local_path(Path(origin)), recipe, context, reference, report, ranks, checkpoints)


def _embedded(family: EmbeddedModel, run: SingleRun) -> Outcome:
    """Train the oracle once more on rank 0, in a process of its own as the first time, and evaluate it on all ranks."""
    context, ranks, costs = run.context, run.ranks, run.costs
    model = context.fresh_model()
    with TemporaryDirectory(prefix="lethe-retrain-") as temporary:
        folder = Path(temporary) / "model"
        spent = _on_rank_zero(lambda: train_anew(context.benchmark, family, folder), ranks)
        if ranks.rank == 0:
            model.load_state_dict(load_model(folder).state_dict())
    if ranks.world > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
    costs.steps, costs.tokens, costs.elsewhere_mb = spent.steps, spent.tokens, spent.peak_memory_mb
    costs.seconds["train"] = spent.seconds
    return run.complete(model, {"epoch": spent.epochs, "retain_loss": spent.loss, "trained_share": 1.0})


def _on_rank_zero(work: Callable[[], T], ranks: Ranks) -> T:
    """Call `work` on rank 0 and return its result on every rank. Gathering every `HEARTBEAT_S` seconds keeps the
    collective of the waiting ranks from timing out."""

    def ended(future: Future[T]) -> bool:
        return bool(wait([future], HEARTBEAT_S).done)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work) if ranks.rank == 0 else None
        while not ranks.gather(future is None or ended(future))[0]:
            pass
    return cast(T, ranks.gather(future and future.result())[0])  # rank 0 has a result


def _from_base(
    base: Path,
    recipe: Recipe,
    context: Context,
    reference: ReferenceValues | None,
    report: ReportFunction,
    ranks: Ranks,
    checkpoints: Checkpoints | None,
) -> Outcome:
    """Run the training loop on every weight of the base checkpoint, with retain rows alone."""
    plain = recipe.model_copy(update={"adapter": FullParameters()})
    loss = Descent()
    context = training_context(context, base, context.retain)
    outcome = unlearn(plain, context, reference, lambda values: report(_renamed(values)), ranks, checkpoints, loss)
    values = _renamed(outcome.report.values)
    return replace(outcome, report=outcome.report.model_copy(update={"values": values}))


def _renamed(values: Metrics) -> Metrics:
    return {("retain_loss" if key == "forget_loss" else key): value for key, value in values.items()}
