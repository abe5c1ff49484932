"""Pieces of tensors that an elementwise update works on one after the other."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Coordinates updated at a time. A step is about ten passes over memory: on a CPU a piece that stays in cache
# makes that one; on a GPU fewer kernels matter more (2^24 keeps fp32 counts of ones exact).
CPU_PIECE, GPU_PIECE = 1 << 17, 1 << 24

Pieces = Iterable[tuple[Tensor, ...]]


def pieces(p: Tensor, *others: Tensor) -> Pieces:
    """Yield views of the same coordinates of every tensor, with a scratch tensor of that size at the end."""
    tensors = (p, *others)
    if not all(t.is_contiguous() for t in tensors):
        return [(*tensors, torch.empty_like(p))]
    size = CPU_PIECE if p.device.type == "cpu" else GPU_PIECE
    scratch = torch.empty(min(size, p.numel()), dtype=p.dtype, device=p.device)
    views = zip(*(torch.split(t.view(-1), size) for t in tensors), strict=True)
    return ((*parts, scratch[: parts[0].numel()]) for parts in views)
