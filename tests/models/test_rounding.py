"""NF4 and LLM.int8() in plain torch: against their definitions, and against bitsandbytes where that is installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lethe.models.rounding import NF4, int8, int8_activations, nf4

CODES = torch.tensor(NF4)


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    found = torch.randn(shape) * 0.02
    found[0] = 0
    return found.to(dtype)


def test_weights_that_nf4_can_hold_stay_as_they_are() -> None:
    torch.manual_seed(0)
    codes = torch.cat([CODES[torch.randint(16, (200, 64))][:, 1:], torch.ones(200, 1)], 1)
    held = (codes * 0.5).reshape(100, 128)  # equal scales: double quantisation has nothing to round
    torch.testing.assert_close(nf4(held), held, rtol=1e-6, atol=0)


def test_nf4_takes_the_nearest_code_of_each_block_of_64_and_scales_of_8_bits() -> None:
    given = weights(30, 100)  # blocks cross rows, and the last one is short
    found = nf4(given)
    values, got = given.reshape(-1), found.reshape(-1)
    scales = torch.tensor([block.abs().max() for block in values.split(64)])
    for block, kept, scale in zip(values.split(64), got.split(64), scales, strict=True):
        if scale == 0:
            continue
        nearest = CODES[(block[:, None] / scale - CODES).abs().argmin(1)]
        used = kept[nearest != 0] / nearest[nearest != 0]
        torch.testing.assert_close(used, used[:1].expand_as(used), rtol=1e-5, atol=0)
        assert abs(float(used[0] - scale)) <= 0.02 * float((scales - scales.mean()).abs().max())


def test_int8_takes_the_nearest_of_255_values_of_each_row() -> None:
    given = weights(5, 40)
    found = int8(given)
    for row, got in zip(given.half().float(), found, strict=True):
        grid = torch.arange(-127, 128) * (row.abs().max() / 127)
        torch.testing.assert_close((row - got).abs(), (row[:, None] - grid).abs().amin(1), atol=1e-7, rtol=0)


def test_int8_leaves_columns_with_outliers_as_they_are() -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 5, 48)
    states[1, 2, 7] = -9.0
    found = int8_activations(states)
    changed = (found != states).reshape(-1, 48).any(0)
    assert changed.nonzero().flatten().tolist() == [column for column in range(48) if column != 7]
    assert float((found - states).abs().max()) <= float(states.abs().max()) / 127


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_are_those_of_bitsandbytes(dtype: torch.dtype) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    for shape in ((64, 64), (7, 33), (256, 1024)):
        given = weights(*shape, dtype=dtype)
        stored, state = functional.quantize_4bit(given, blocksize=64, compress_statistics=True, quant_type="nf4")
        found, theirs = nf4(given), functional.dequantize_4bit(stored, state)
        # Its kernel for CPUs misses the nearest of two scales' codes in one of a thousand blocks; CUDA's does not.
        assert float((found == theirs).float().mean()) > 0.97
        torch.testing.assert_close(found, theirs, rtol=0.02, atol=0)
        plain, scales, _ = functional.int8_vectorwise_quant(given[1:].half())
        torch.testing.assert_close(
            int8(given[1:]).float(),
            functional.int8_vectorwise_dequant(plain, scales).to(dtype).float(),
            rtol=1e-6,
            atol=0,
        )


def test_a_layer_of_bitsandbytes_in_int8_computes_the_same() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    plain = torch.nn.Linear(48, 32)
    layer = bitsandbytes.nn.Linear8bitLt(48, 32, has_fp16_weights=False, threshold=6.0)
    layer.load_state_dict(plain.state_dict())
    layer = layer.to("cpu").eval()
    states = torch.randn(2, 5, 48) * 2
    states[1, 2, 7] = -20.0
    with torch.no_grad():
        found = torch.nn.functional.linear(int8_activations(states), int8(plain.weight), plain.bias)
        torch.testing.assert_close(found, layer(states), atol=2e-4, rtol=0)
        assert float((found - plain(states)).abs().max()) > 1e-3, "rounding shows"
