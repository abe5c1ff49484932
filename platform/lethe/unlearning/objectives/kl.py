"""Gradient difference with a divergence: the prediction at retain answers stays the start model's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lethe.config.objective import Kl as KlConfig
from lethe.data.batches import RowKind
from lethe.unlearning.objectives.base import LOSSES, Loss, Scored
from lethe.unlearning.objectives.tokens import add_at, part_buffer, parts, softmax_parts


@LOSSES.implements(KlConfig)
class Kl(Loss):
    """L_forget = -NLL(forget); L_retain = KL(p_ref || p), the mean over retain answer tokens, p_ref the start model's.

    Maini et al. 2024, arXiv 2401.06121. The entropy of p_ref is in it, so it is 0 at the start and never negative.
    SOUL's released code differs in four points: it weighs log p_ref by p instead of log p by p_ref (the reversed
    divergence), leaves the entropy out, averages over padding, and multiplies the forget term by gamma.
    """

    needs_start_logits: ClassVar[bool] = True

    def token_values(self, scored: Scored) -> Tensor:
        """Return [N]: log p at forget positions, -KL at retain positions."""
        if scored.start_logits is None:
            raise ValueError("kl needs the start model's logits")
        return token_divergences(scored.logits, scored.labels, scored.start_logits, scored.of(RowKind.RETAIN))


def token_divergences(logits: Tensor, labels: Tensor, start_logits: Tensor, chosen: Tensor) -> Tensor:
    """Return log p(label), or -KL(p_ref || p) where `chosen` [N] bool is set: [N] in nats, at most 0.

    logits [N, V], labels [N], start_logits [M, V] for the M chosen positions in their order -> [N] fp32 (float64 for
    float64 logits). Both are minus a cross-entropy, up to a constant, with a target t: the label's one-hot
    vector or p_ref. So both have the gradient t - p on the logits, and beside logits and start_logits there is no
    [N, V] tensor but that gradient.
    """
    values: Tensor = _TokenDivergences.apply(logits, labels, start_logits, chosen)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return values


class _TokenDivergences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, start_logits: Tensor, chosen: Tensor) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        values = torch.empty(labels.shape, dtype=dtype, device=logits.device)
        buffer = part_buffer(logits, dtype)
        at = chosen.nonzero().flatten()
        for part, start in zip(parts(logits), _matching_slices(logits, at), strict=True):
            log_p = torch.log_softmax(logits[part].to(dtype), -1, out=buffer[: part.stop - part.start])
            values[part] = log_p.gather(1, labels[part].unsqueeze(1)).squeeze(1).clamp_max_(0)
            log_ref = torch.log_softmax(start_logits[start].to(dtype), -1)
            excess = log_p[at[start] - part.start].sub_(log_ref)
            values[at[start]] = log_ref.exp_().mul_(excess).sum(-1).clamp_max_(0)
        ctx.save_for_backward(logits, labels, start_logits, at)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logits, labels, start_logits, at = ctx.saved_tensors
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        at_label = grad.index_fill(0, at, 0)
        starts = _matching_slices(logits, at)
        for (part, p), start in zip(softmax_parts(logits, result, grad.dtype), starts, strict=True):
            p.mul_(-grad[part].unsqueeze(1))
            add_at(p, labels[part], at_label[part])
            p_ref = torch.softmax(start_logits[start].to(grad.dtype), -1)
            p.index_add_(0, at[start] - part.start, p_ref.mul_(grad[at[start]].unsqueeze(1)))
        return result, None, None, None


def _matching_slices(logits: Tensor, at: Tensor) -> list[slice]:
    """Return the slice of `at` [M], ascending, that points into each of `parts(logits)`."""
    stops = torch.tensor([part.stop for part in parts(logits)], device=at.device, dtype=at.dtype)
    return [slice(a, b) for a, b in pairwise([0, *torch.searchsorted(at, stops).tolist()])]
