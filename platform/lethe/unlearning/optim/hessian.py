"""Sampled labels and their loss, for the Gauss-Newton-Bartlett Hessian (Liu et al. 2023, arXiv 2305.14342)."""

from __future__ import annotations

import torch
from torch import Tensor

# Logits whose float64 cumulative sum is held at a time. On a CPU, fresh pages above 2 MiB cost more than the sum.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 18, 1 << 25


def sample_keys(seed: int, refresh: int, row: Tensor, position: Tensor) -> Tensor:
    """Return one 64-bit key per scored position, [N] int64, which does not depend on rank or batch split.

    `row` [N] is the row's identity in the whole data set (not in the micro-batch; forget and retain rows need
    different ones), `position` [N] the index in the row's answer.
    """
    start = torch.tensor(seed, dtype=torch.int64, device=row.device)
    key = _mix(_mix(start) + refresh)
    return _mix(_mix(key + row) + position)


def sampled_labels(logits: Tensor, keys: Tensor) -> Tensor:
    """Draw labels y ~ softmax(logits): logits [N, V], keys [N] int64 -> [N] int64. True labels never enter.

    Inverse of the cumulative distribution at a uniform number hashed from the key: the same key and logits give the
    same label whatever else is in the batch.
    """
    uniform = ((_mix(keys) >> 11) & ((1 << 53) - 1)).double().add_(0.5).mul_(2.0**-53)
    labels = torch.empty_like(keys)
    elements = CPU_ELEMENTS if logits.device.type == "cpu" else GPU_ELEMENTS
    rows = max(1, elements // max(1, logits.shape[1]))
    for start in range(0, keys.shape[0], rows):
        part = slice(start, start + rows)
        # fp32 probabilities (a float64 softmax costs ten times as much), summed in float64.
        below = torch.softmax(logits[part].detach().float(), -1).double().cumsum(-1)
        # Scaled to the sum as it came out, so that the last token keeps exactly its share.
        target = (uniform[part] * below[:, -1]).unsqueeze(1)
        labels[part] = torch.searchsorted(below, target, right=True).squeeze(1)
    return labels.clamp_max_(logits.shape[1] - 1)


def sampled_loss(log_probs: Tensor, tokens_total: int) -> Tensor:
    """Return this micro-batch's share of the mean cross-entropy from `log_probs` [N] of its sampled labels: their sum
    over the global token count `tokens_total`."""
    return -log_probs.sum() / max(1, tokens_total)


def _mix(x: Tensor) -> Tensor:
    """Return one step of splitmix64 (Steele et al. 2014) on int64 `x`: products wrap, right shifts are logical."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """Return the int64 with the bits of the unsigned `word`."""
    return word - (1 << 64) if word >> 63 else word
