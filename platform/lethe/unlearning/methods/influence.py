"""One-shot influence unlearning: one damped Newton step away from the forget rows (docs/METHODS.md section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lethe.benchmarks.base import ReferenceValues
from lethe.config.adapter import FullParameters
from lethe.config.objective import Influence
from lethe.config.run import Recipe
from lethe.data.batches import RowKind, Sourced, collate
from lethe.models.adapters import attach
from lethe.models.forward import scored_logits
from lethe.unlearning.checkpoint import Checkpoints
from lethe.unlearning.context import Context
from lethe.unlearning.methods.base import METHODS, SingleRun
from lethe.unlearning.objectives.tokens import token_log_probs
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels
from lethe.unlearning.outcome import Outcome, Ranks, ReportFunction
from lethe.unlearning.stepper import KIND_KEYS


@METHODS.implements(Influence)
def influence(
    recipe: Recipe,
    context: Context,
    reference: ReferenceValues | None,
    report: ReportFunction,
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Evaluate theta + strength (H + damping mean(H))^-1 g once: `epoch` and `optimizer_step` are 1.

    Ranks share the rows and add up g and H, each on a whole fp32 copy of the model: 16 bytes a parameter with the
    gradient of a row. What is evaluated has the start model's precision. `forget_loss` and `retain_loss` are
    grad_diff's, before the step.
    """
    assert isinstance(recipe.objective, Influence)
    run = SingleRun(recipe, context, reference, ranks)
    model = context.fresh_model()
    attach(model, FullParameters(), seed=recipe.seed)
    precision = model.dtype
    _cast(model, torch.float32)
    rows = [(RowKind.FORGET, row) for row in enumerate(context.forget)]
    rows += [(RowKind.RETAIN, row) for row in enumerate(context.retain)]
    with run.costs.timed("train"):
        sums = row_totals(model, rows[ranks.rank :: ranks.world], recipe.objective, context.template.pad, recipe.seed)
        if ranks.world > 1:
            sums.all_reduce()
        finite = newton_step(_trained(model), sums, recipe.objective)
    run.costs.steps, run.costs.tokens = 1, sum(len(row.ids) for _, (_, row) in rows)
    if not finite:
        return run.ended("diverged", "the influence step is not finite")
    _cast(model, precision)
    forget, retain = (sums.nll / sums.tokens).tolist()
    return run.complete(model, {"epoch": 1, "forget_loss": -forget, "retain_loss": retain, "trained_share": 1.0})


@dataclass
class Totals:
    """Sums over rows of the gradient and the Hessian of each row's summed token NLL.

    `gradient`: over forget rows, `hessian`: the diagonal, over all rows, both fp32 by parameter; `nll` and `tokens`
    [2] float64: of forget and of retain rows.
    """

    gradient: list[Tensor]
    hessian: list[Tensor]
    nll: Tensor
    tokens: Tensor

    def all_reduce(self) -> None:
        """Replace every sum by the sum over ranks, to the same bits on each."""
        for tensor in (*self.gradient, *self.hessian, self.nll, self.tokens):
            dist.all_reduce(tensor)


def row_totals(
    model: nn.Module, rows: Iterable[tuple[RowKind, Sourced]], config: Influence, pad: int, seed: int
) -> Totals:
    """Return the sums over `rows` that the Newton step needs. Batches are of one row, since its gradient is squared.

    There is one forward per row and one backward, two where a forget row's own labels and sampled ones are both needed.
    `gnb` squares a row's gradient of labels that the model samples: the labels are independent and their gradients
    have mean 0, so that it is an unbiased estimate of the row's Gauss-Newton diagonal (Liu et al. 2023, arXiv
    2305.14342). `empirical_fisher` squares that of the true labels.
    """
    params = _trained(model)
    device = params[0].device
    totals = Totals(
        [torch.zeros_like(p) for p in params],
        [torch.zeros_like(p) for p in params],
        torch.zeros(2, dtype=torch.float64, device=device),
        torch.zeros(2, dtype=torch.float64, device=device),
    )
    for kind, row in rows:
        batch = collate({kind: [row]}, pad).to(device)
        logits = scored_logits(model, batch.input_ids, batch.position)
        nll = -token_log_probs(logits, batch.labels).sum()
        totals.nll[kind] += nll.detach()
        totals.tokens[kind] += len(batch.labels)
        sampled = config.hessian == "gnb"
        if sampled:
            keys = sample_keys(seed, 0, (batch.source + KIND_KEYS * batch.kind)[batch.row], batch.place)
            loss = -token_log_probs(logits, sampled_labels(logits, keys)).sum()
            _add_squares(totals.hessian, torch.autograd.grad(loss, params, retain_graph=kind == RowKind.FORGET))
        if kind == RowKind.FORGET or not sampled:
            gradient = torch.autograd.grad(nll, params)
            if kind == RowKind.FORGET:
                torch._foreach_add_(totals.gradient, gradient)
            if not sampled:
                _add_squares(totals.hessian, gradient)
    return totals


@torch.no_grad()
def newton_step(params: Sequence[Tensor], totals: Totals, config: Influence) -> bool:
    """Move `params` in place and return whether all of them are finite afterwards.

    Removing the forget rows leaves the gradient -g at theta. With g and H as means over |D_f| and N rows instead, the
    step would be N / |D_f| too long.
    """
    size = sum(h.numel() for h in totals.hessian)
    mean = sum(h.sum(dtype=torch.float64) for h in totals.hessian) / size
    damping = float(config.damping * mean)
    for p, g, h in zip(params, totals.gradient, totals.hessian, strict=True):
        p.addcdiv_(g, h + damping, value=config.strength)
    return all(bool(torch.isfinite(p).all()) for p in params)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that the step moves: of a multimodal model the language model's."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights in place. Buffers stay: rotary frequencies are fp32 in every model."""
    for p in model.parameters():
        p.data = p.data.to(dtype)


def _add_squares(sums: list[Tensor], gradient: Sequence[Tensor]) -> None:
    torch._foreach_addcmul_(sums, list(gradient), list(gradient))
