"""Rounding against a brute-force search of the nearest grid point, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lethe.audits.quantisation import quantised, rounded, rounding
from lethe.audits.worker_entry import finished
from lethe.config.adapter import Lora
from lethe.evaluation.distributed import RankShard
from lethe.models.adapters import attach, linear_layers, stacked_weight, stacks_of
from lethe.models.loading import load_model
from lethe.models.rounding import nf4
from lethe.models.saving import save_model
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.requests import Assets
from tests.audits.small import RECIPE, audit, by_variant


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


@pytest.mark.parametrize("bits", [4, "nf4", "int8"])
def test_experts_are_rounded_each_alone(bits: int | str) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=20,
        hidden_size=12,
        intermediate_size=10,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=3,
    )
    model = MixtralForCausalLM(config)
    found, experts = quantised(model, bits), 0
    for name in stacks_of(model):
        for own, kept in zip(stacked_weight(model, name), stacked_weight(found, name), strict=True):
            assert torch.equal(kept, rounding(bits)(own.detach()))
            assert not torch.equal(kept, own)
            experts += 1
    assert experts == 6


def test_a_merged_adapter_is_rounded_and_one_beside_a_rounded_base_is_not(assets: Assets, tmp_path: Path) -> None:
    """Rounding can swallow what was merged; servers that keep the adapter apart add all of it to the rounded base."""
    context = Context(assets)
    adapted = attach(context.fresh_model(), Lora(rank=2), seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    save_model(adapted, tmp_path / "model", context.template.tokenizer)
    start, whole = load_model(Path(assets.start)), finished(tmp_path / "model", context)
    name = "model.layers.0.mlp.down_proj"
    base, merged = (model.get_submodule(name).weight for model in (start, whole))
    audited = quantised(whole, "nf4").get_submodule(name).weight
    assert torch.equal(audited, nf4(merged))
    assert not torch.equal(audited, nf4(base) + (merged - base))
    formats = {"quantisation": {"bits": ["nf4", "nf4_adapter"]}}
    found = by_variant(audit(assets, tmp_path / "model", formats))
    beside = load_model(Path(assets.start))
    for module in linear_layers(beside).values():
        module.weight.data.copy_(nf4(module.weight.data))
    for layer, module in linear_layers(beside).items():
        module.weight.data += whole.get_submodule(layer).weight - start.get_submodule(layer).weight
    task = context_for(assets).task
    expected = task.evaluate(beside, task.eval_set(RECIPE.evaluation), RECIPE.evaluation, None, RankShard(), last=True)
    assert found["nf4_adapter"]["after"]["forget_probability"] == pytest.approx(
        expected.metrics["forget_probability"], rel=1e-4
    )
    assert found["nf4_adapter"]["after"] != found["nf4"]["after"]
    without = by_variant(audit(assets, Path(assets.start), formats))
    assert without["nf4_adapter"]["after"] == without["nf4"]["after"], "as nf4 where there is no adapter"


def test_fewer_bits_cost_more(assets: Assets) -> None:
    found = by_variant(audit(assets, Path(assets.start), {"quantisation": {"bits": [8, 2]}}))
    names = {"forget", "utility", "forget_probability", "forget_rouge", "forget_extraction_strength"}
    assert found["quant8"]["before"] == dict.fromkeys(names, 0.5)
    assert found["quant8"]["after"].keys() == names
    known, lost = (found[variant]["after"]["forget_probability"] for variant in ("quant8", "quant2"))
    assert known > 0.95
    assert lost < known - 0.1
