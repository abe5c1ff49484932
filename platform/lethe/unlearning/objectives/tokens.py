"""Per-token terms of the objectives, in fp32: their gradient is the only [N, V] tensor beside the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits handled at a time. On a CPU the temporary should stay in cache; on a GPU few kernels matter more.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 20, 1 << 25
BLOCK = 64  # width of the first stage of `_argmax`


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p(label) at every position: logits [N, V], labels [N] -> [N] fp32 (float64 for float64 logits)."""
    terms: Tensor = _TokenTerms.apply(logits, labels, None)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return terms


def token_terms(logits: Tensor, labels: Tensor, hinge: Tensor) -> Tensor:
    """Return log p_t, or the inverted hinge 1 + p_t - max_{v != t} p_v in [0, 2] where `hinge` [N] bool is set.

    Same shapes as `token_log_probs`. LoKU: Cha et al. 2024, arXiv 2408.06621, equation 4.
    """
    terms: Tensor = _TokenTerms.apply(logits, labels, hinge)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return terms


def row_sums(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Sum `values` [N] by `row` [N] -> [rows]. Masked sums, not index_add: that is atomic, so unordered, on a GPU."""
    in_row = row == torch.arange(rows, device=row.device).unsqueeze(1)
    return torch.where(in_row, values, 0).sum(1)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of `values` where `mask` holds; 0, still on the graph, where it holds nowhere."""
    return torch.where(mask, values, 0).sum()


class _TokenTerms(torch.autograd.Function):
    """Both terms. Their gradients on the logits have one form: c p_v, plus a at the label, plus b at the runner-up.

    log p_t:             c = -1,        a = 1,    b = 0.
    1 + p_t - p_o:       c = p_o - p_t, a = p_t,  b = -p_o, with o the largest logit among v != t.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, hinge: Tensor | None) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        values = torch.empty(labels.shape, dtype=dtype, device=logits.device)
        weights = values.new_empty((0 if hinge is None else 3, *labels.shape))
        other = None if hinge is None else torch.zeros_like(labels)
        buffer = part_buffer(logits, dtype)
        for part in parts(logits):
            # The fused softmax kernels are twice as fast as the same arithmetic in separate operations.
            log_p = torch.log_softmax(logits[part].to(dtype), -1, out=buffer[: part.stop - part.start])
            label = labels[part].unsqueeze(1)
            true = log_p.gather(1, label).squeeze(1).clamp_max_(0)
            if hinge is None or other is None:
                values[part] = true
                continue
            log_p.scatter_(1, label, -torch.inf)
            other[part] = _argmax(log_p)
            p_t = true.exp()
            p_o = log_p.gather(1, other[part].unsqueeze(1)).squeeze(1).clamp_max_(0).exp_()
            chosen = hinge[part]
            values[part] = torch.where(chosen, (1 + p_t) - p_o, true)
            weights[0, part] = torch.where(chosen, p_o - p_t, -1)
            weights[1, part] = torch.where(chosen, p_t, 1)
            weights[2, part] = torch.where(chosen, -p_o, 0)
        ctx.save_for_backward(logits, labels, other, weights)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, other, weights = ctx.saved_tensors
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for part, p in softmax_parts(logits, result, grad.dtype):
            g = grad[part]
            c, a = (-g, g) if other is None else (g * weights[0, part], g * weights[1, part])
            p.mul_(c.unsqueeze(1))
            add_at(p, labels[part], a)
            if other is not None:
                add_at(p, other[part], g * weights[2, part])
        return result, None, None


def parts(logits: Tensor) -> Iterator[slice]:
    """Return slices of rows that cover `logits` [N, V] and keep the fp32 temporaries small."""
    rows, end = _rows_per_part(logits), logits.shape[0]
    return (slice(start, min(start + rows, end)) for start in range(0, end, max(1, rows)))


def part_buffer(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an empty tensor of the largest part's shape, used for all: fresh pages per part cost as much as the
    softmax."""
    return torch.empty((_rows_per_part(logits), logits.shape[1]), dtype=dtype, device=logits.device)


def softmax_parts(logits: Tensor, result: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield each part of the rows with its softmax in `dtype`; the caller changes that in place, and its values then go
    to `result` [N, V]."""
    narrow = result.dtype != dtype
    buffer = part_buffer(logits, dtype) if narrow else result
    for part in parts(logits):
        target = buffer[: part.stop - part.start] if narrow else result[part]
        p = torch.softmax(logits[part].to(dtype), -1, out=target)
        yield part, p
        if narrow:
            result[part] = p


def add_at(matrix: Tensor, column: Tensor, value: Tensor) -> None:
    """Add in place: matrix[n, column[n]] += value[n]; one column per row, so no two writes meet."""
    column = column.unsqueeze(1)
    matrix.scatter_(1, column, matrix.gather(1, column) + value.unsqueeze(1))


def _rows_per_part(logits: Tensor) -> int:
    elements = CPU_ELEMENTS if logits.device.type == "cpu" else GPU_ELEMENTS
    return min(logits.shape[0], max(1, elements // max(1, logits.shape[1])))


def _argmax(x: Tensor) -> Tensor:
    """Return the first largest column of each row, [R, V] -> [R]: argmax over blocks, then inside the best one.

    Plain argmax is not vectorised on CPU and costs as much as a softmax; this costs a fifth.
    """
    blocks = x.shape[1] // BLOCK
    best: Tensor = x[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)).amax(-1)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    if x.shape[1] % BLOCK:
        best = torch.cat([best, x[:, blocks * BLOCK :].amax(1, keepdim=True)], 1)
    inside = torch.arange(BLOCK, device=x.device)
    columns = (best.argmax(1, keepdim=True) * BLOCK + inside).clamp_max_(x.shape[1] - 1)
    return columns.gather(1, x.gather(1, columns).argmax(1, keepdim=True)).squeeze(1)
