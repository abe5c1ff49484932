"""Attention of one new token per row on a CPU, by plain batched products instead of PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward


@contextmanager
def fast_one_token_attention(device: torch.device) -> Iterator[None]:
    """Inside the block models on a CPU whose attention is `sdpa` compute it by `one_token_attention`."""
    # Registered under the same name: some models ask for it, and build their masks by it.
    if device.type == "cpu":
        AttentionInterface.register("sdpa", one_token_attention)
    try:
        yield
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)


def one_token_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """Return what transformers' `sdpa_attention_forward` returns: [rows, new, heads, d] and None.

    With one query per row the fused kernel is slower than plain products, which read the keys and values of a group of
    heads once for all of them. Whatever else is asked for goes to the fused kernel.
    """
    rows, heads, new, width = query.shape
    shared = attention_mask is None or attention_mask.shape[1] == 1
    if new > 1 or not shared or dropout or not {"position_bias", "softcap"}.isdisjoint(further):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **further
        )
    groups = key.shape[1]
    scores = query.reshape(rows, groups, heads // groups, width) @ key.transpose(2, 3)
    scores *= width**-0.5 if scaling is None else scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores += attention_mask
    output = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return output.view(rows, 1, heads, value.shape[-1]), None
