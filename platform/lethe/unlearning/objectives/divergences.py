"""Per-token cross-entropies with a distribution as the target: their gradient is the only [N, V] tensor of theirs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lethe.unlearning.objectives.tokens import add_at, part_buffer, parts, softmax_parts


def token_divergences(logits: Tensor, labels: Tensor, target_logits: Tensor, chosen: Tensor) -> Tensor:
    """Return log p(label), or -KL(q || p) with q = softmax(target_logits) where `chosen` [N] bool is set: [N] in nats,
    at most 0.

    logits [N, V], labels [N], target_logits [M, V] for the M chosen positions in their order -> [N] fp32 (float64 for
    float64 logits). Both are minus a cross-entropy, up to a constant, with a target t: the label's one-hot
    vector or q. So both have the gradient t - p on the logits, and beside logits and target_logits there is no
    [N, V] tensor but that gradient.
    """
    values: Tensor = _TokenDivergences.apply(logits, labels, target_logits, chosen, 0.0, True)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return values


def token_cross_entropies(
    logits: Tensor, labels: Tensor, target_logits: Tensor | None, chosen: Tensor, lowered: float
) -> Tensor:
    """Return log p(label), or sum_v q(v) log p(v) where `chosen` is set: q is the softmax of target_logits, of `logits`
    themselves if None, after the label's is lowered by `lowered`, which may be infinite; it has no gradient.

    Shapes and gradient as in `token_divergences`.
    """
    values: Tensor = _TokenDivergences.apply(logits, labels, target_logits, chosen, lowered, False)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return values


class _TokenDivergences(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        target_logits: Tensor | None,
        chosen: Tensor,
        lowered: float,
        less_entropy: bool,
    ) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        values = torch.empty(labels.shape, dtype=dtype, device=logits.device)
        buffer = part_buffer(logits, dtype)
        at = chosen.nonzero().flatten()
        for part, own in zip(parts(logits), _matching_slices(logits, at), strict=True):
            log_p = torch.log_softmax(logits[part].to(dtype), -1, out=buffer[: part.stop - part.start])
            values[part] = log_p.gather(1, labels[part].unsqueeze(1)).squeeze(1).clamp_max_(0)
            target = logits[at[own]] if target_logits is None else target_logits[own]
            log_q = torch.log_softmax(_lowered(target, labels[at[own]], lowered, dtype), -1)
            excess = log_p[at[own] - part.start]
            if less_entropy:
                excess.sub_(log_q)
            values[at[own]] = log_q.exp_().mul_(excess).sum(-1).clamp_max_(0)
        ctx.save_for_backward(logits, labels, target_logits, at)
        ctx.lowered = lowered
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        logits, labels, target_logits, at = ctx.saved_tensors
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        at_label = grad.index_fill(0, at, 0)
        matching = _matching_slices(logits, at)
        for (part, p), own in zip(softmax_parts(logits, result, grad.dtype), matching, strict=True):
            p.mul_(-grad[part].unsqueeze(1))
            add_at(p, labels[part], at_label[part])
            target = logits[at[own]] if target_logits is None else target_logits[own]
            q = torch.softmax(_lowered(target, labels[at[own]], ctx.lowered, grad.dtype), -1)
            p.index_add_(0, at[own] - part.start, q.mul_(grad[at[own]].unsqueeze(1)))
        return result, None, None, None, None, None


def _lowered(target_logits: Tensor, labels: Tensor, by: float, dtype: torch.dtype) -> Tensor:
    """Return target_logits [M, V] in `dtype`, the entry of each label lowered; a copy unless `by` is 0."""
    if not by:
        return target_logits.to(dtype)
    copy = target_logits.to(dtype, copy=True)
    add_at(copy, labels, copy.new_full(labels.shape, -by))
    return copy


def _matching_slices(logits: Tensor, at: Tensor) -> list[slice]:
    """Return the slice of `at` [M], ascending, that points into each of `parts(logits)`."""
    stops = torch.tensor([part.stop for part in parts(logits)], device=at.device, dtype=at.dtype)
    return [slice(a, b) for a, b in pairwise([0, *torch.searchsorted(at, stops).tolist()])]
