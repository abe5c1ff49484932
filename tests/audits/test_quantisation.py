"""Rounding against a brute-force search of the nearest grid point, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lethe.audits.quantisation import quantised, rounded
from lethe.models.loading import load_model
from lethe.unlearning.requests import Assets
from tests.audits.small import audit, by_variant


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_weight_goes_to_the_nearest_point_of_its_row(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 40, dtype=torch.float64) * torch.tensor([[1.0], [10.0], [1e-3], [0.0], [1.0]])
    found = rounded(weight, bits)
    levels = 2 ** (bits - 1) - 1
    for row, got in zip(weight, found, strict=True):
        grid = torch.arange(-levels, levels + 1) * (row.abs().max() / levels)
        nearest = (row[:, None] - grid).abs().amin(1)
        torch.testing.assert_close((row - got).abs(), nearest, atol=1e-12, rtol=0)
        assert len(got.unique()) <= 2 * levels + 1
    torch.testing.assert_close(rounded(found, bits), found)
    torch.testing.assert_close(rounded(-weight, bits), -found)


def test_linear_layers_of_a_copy_are_rounded_and_nothing_else(assets: Assets) -> None:
    model = load_model(Path(assets.start))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    other = quantised(model, 4).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
        if name.endswith("_proj.weight"):
            assert all(len(row.unique()) <= 15 for row in other[name])
        else:
            assert torch.equal(weight, other[name])


def test_rows_of_a_transposed_layer_are_its_outputs() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config)
    name = "transformer.h.0.mlp.c_fc"  # Conv1D stores [in, out]
    found = quantised(model, 3).get_submodule(name).weight
    torch.testing.assert_close(found, rounded(model.get_submodule(name).weight.T, 3).T)


def test_fewer_bits_cost_more(assets: Assets) -> None:
    found = by_variant(audit(assets, Path(assets.start), {"quantisation": {"bits": [8, 2]}}))
    names = {"forget", "utility", "forget_probability", "forget_rouge", "forget_extraction_strength"}
    assert found["quant8"]["before"] == dict.fromkeys(names, 0.5)
    assert found["quant8"]["after"].keys() == names
    known, lost = (found[variant]["after"]["forget_probability"] for variant in ("quant8", "quant2"))
    assert known > 0.95
    assert lost < known - 0.1
