"""Weights as servers round them: NF4 and LLM.int8() as bitsandbytes 0.50 has them, in plain torch on any device.

Computed here and not by that package, so that a number does not depend on what is installed. Tests compare the two.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BLOCK, SCALES_BLOCK = 64, 256  # weights that share a scale, and scales that share one
OUTLIER = 6.0  # LLM.int8(): activations from here on are multiplied in full precision

# Quantiles of a normal distribution, and 0: Dettmers et al. 2023, arXiv 2305.14314, appendix E.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
    *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def nf4(weight: Tensor) -> Tensor:
    """Return `weight` [out, in] as NF4 stores it (Dettmers et al. 2023, arXiv 2305.14314), in its own dtype.

    Each block of 64 weights, row after row, has its largest absolute value as scale; the scales less their mean are
    themselves rounded to 8 bits (double quantisation).
    """
    blocks = _blocks(weight.float(), BLOCK)
    scales = blocks.abs().amax(-1)
    codes = torch.tensor(NF4, device=weight.device)
    values = _nearest(blocks * (1 / scales.clamp(min=1e-38))[:, None], codes)
    return _joined(values * _rounded_scales(scales)[:, None], weight)


def _rounded_scales(scales: Tensor) -> Tensor:
    """Return the scales [blocks] after double quantisation: a mean, and 8 bits of the difference in blocks of 256."""
    mean = scales.mean()
    blocks = _blocks(scales - mean, SCALES_BLOCK)
    largest = blocks.abs().amax(-1, keepdim=True)
    values = _nearest(blocks * (1 / largest.clamp(min=1e-38)), _dynamic_codes().to(scales.device))
    return _joined(values * largest, scales) + mean


def _blocks(values: Tensor, size: int) -> Tensor:
    """Return the values as rows of `size`, the last one filled up with zeros."""
    flat = values.reshape(-1)
    return torch.nn.functional.pad(flat, (0, -len(flat) % size)).reshape(-1, size)


def _joined(blocks: Tensor, like: Tensor) -> Tensor:
    return blocks.reshape(-1)[: like.numel()].reshape(like.shape).to(like.dtype)


def _nearest(values: Tensor, codes: Tensor) -> Tensor:
    """Return the nearest of the sorted `codes` to each value, of two equally near ones the smaller."""
    return codes[torch.bucketize(values.clamp(-1, 1), (codes[:-1] + codes[1:]) / 2)]


@cache
def _dynamic_codes() -> Tensor:
    """Return the 256 sorted values of the signed dynamic 8-bit type (Dettmers 2015, arXiv 1511.04561): for e = 0 to 6
    the 2^e centres of equal parts of [.1, 1], times 10^(e - 6), with both signs; 0 and 1."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        centres = (10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)).tolist()
        values += [sign * centre for centre in centres for sign in (1, -1)]
    return torch.tensor(sorted(values))


def int8(weight: Tensor) -> Tensor:
    """Return `weight` [out, in] as LLM.int8() stores it (Dettmers et al. 2022, arXiv 2208.07339), in its own dtype:
    each row in 255 steps up to its largest absolute weight."""
    return _to_int8(weight.half()).to(weight.dtype)


def _to_int8(rows: Tensor) -> Tensor:
    """Return rows [..., n] in fp32, each rounded to multiples of 1/127 of its largest absolute value."""
    largest = rows.abs().amax(-1, keepdim=True).float()
    steps = (rows * (127.0 / largest)).round()
    return torch.where(largest > 0, steps * largest / 127, 0.0)


def int8_activations(states: Tensor) -> Tensor:
    """Return the inputs [..., in] of a layer as LLM.int8() multiplies them: the row of each token rounded as `int8`
    rounds a weight's, but for the columns in which a token of the batch has a value of 6 or more."""
    given = states.reshape(-1, states.shape[-1])
    halves = given.half()
    outliers = halves.abs() >= OUTLIER
    rounded = _to_int8(halves.masked_fill(outliers, 0)).to(states.dtype)
    return torch.where(outliers.any(0), given, rounded).reshape(states.shape)
