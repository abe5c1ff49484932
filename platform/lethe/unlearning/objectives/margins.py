"""Per-token squared margins of the largest logit: their gradient is the only [N, V] tensor beside the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lethe.unlearning.objectives.tokens import add_at, part_buffer, parts, softmax_parts


def token_margins(logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """Return log p(label), or (max_v z_v - mean_v z_v)^2 where `chosen` [N] bool is set.

    logits [N, V], labels [N] -> [N] fp32 (float64 for float64 logits). Of several largest logits the first counts.
    """
    values: Tensor = _TokenMargins.apply(logits, labels, chosen)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return values


class _TokenMargins(torch.autograd.Function):
    """The gradient on the logits: of log p(label), onehot(label) - p; of m^2, 2 m (onehot(largest) - 1 / V)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        values = torch.empty(labels.shape, dtype=dtype, device=logits.device)
        margin, at = torch.zeros_like(values), labels.clone()
        buffer = part_buffer(logits, dtype)
        for part in parts(logits):
            z = logits[part].to(dtype)
            largest = z.max(1)
            margin[part] = largest.values - z.mean(1)
            at[part] = torch.where(chosen[part], largest.indices, labels[part])
            log_p = torch.log_softmax(z, -1, out=buffer[: part.stop - part.start])
            true = log_p.gather(1, labels[part].unsqueeze(1)).squeeze(1).clamp_max_(0)
            values[part] = torch.where(chosen[part], margin[part].square(), true)
        ctx.save_for_backward(logits, at, margin, chosen)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, at, margin, chosen = ctx.saved_tensors
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        scale = grad * torch.where(chosen, 2 * margin, 1)
        width = max(1, logits.shape[1])
        for part, p in softmax_parts(logits, result, grad.dtype):
            of_margin = chosen[part].unsqueeze(1)
            p.masked_fill_(of_margin, 1 / width).mul_(-scale[part].unsqueeze(1))
            add_at(p, at[part], scale[part])
        return result, None, None
