"""Saved models load with stock transformers and peft and compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lethe.config.adapter import AnyAdapter, Fila, FullParameters, Lora, Pissa, Vila
from lethe.models.saving import merged, save_model
from tests.models.small import disturb, gpt2, llama, logits, started, tokens

CONFIGS: tuple[AnyAdapter, ...] = (
    FullParameters(), Lora(rank=3, alpha_over_rank=1.5), Pissa(rank=4), Fila(rank=4), Vila(rank=4)
)  # fmt: skip
each = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
makers = pytest.mark.parametrize("make", [llama, lambda: llama(tied=True), gpt2], ids=["llama", "tied", "gpt2"])


def trained(make: Callable, config: AnyAdapter) -> torch.nn.Module:
    model = started(make, config)
    disturb(model)
    return model


def loaded(folder: Path, make: Callable, base_folder: Path) -> torch.nn.Module:
    """As a user would: a plain load, or the adapter on the original base."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    make().save_pretrained(base_folder)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder).eval()


@each
@makers
def test_a_saved_model_reloads_with_the_same_logits(config: AnyAdapter, make: Callable, tmp_path: Path) -> None:
    model = trained(make, config)
    truth = logits(model, tokens())
    assert (truth - logits(make(), tokens())).abs().max() > 0.05
    save_model(model, tmp_path / "saved")
    again = loaded(tmp_path / "saved", make, tmp_path / "base")
    torch.testing.assert_close(logits(again, tokens()), truth, rtol=0, atol=1e-5)


@each
@makers
def test_merged_is_a_plain_copy(config: AnyAdapter, make: Callable, tmp_path: Path) -> None:
    model = trained(make, config).double()  # rounding differs between processors
    truth = logits(model, tokens())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    copy = merged(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(copy) is type(make())
    assert copy.config is not model.config
    torch.testing.assert_close(logits(copy, tokens()), truth, rtol=0, atol=5e-6)
    with torch.no_grad():
        for p in copy.parameters():
            p.zero_()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    save_model(merged(model), tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float64).eval()
    torch.testing.assert_close(logits(again, tokens()), truth, rtol=0, atol=5e-6)


def test_fila_is_saved_as_one_lora_of_twice_the_rank(tmp_path: Path) -> None:
    save_model(trained(llama, Fila(rank=4, alpha_over_rank=2)), tmp_path / "saved", base_name="org/base")
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (8, 16, "org/base")
    tensors = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    a = tensors["base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"]
    assert a.shape == (8, 32)
    assert len(tensors) == 28
    assert not any("start" in name for name in tensors)


@pytest.mark.parametrize("config", [Pissa(rank=4), Fila(rank=4)], ids=lambda c: c.name)
def test_the_adapter_alone_is_wrong_on_the_original_base_and_ours_is_not(config: Pissa, tmp_path: Path) -> None:
    """FILA's released evaluation loads what trained without the shift of the base: even before any training the
    logits are another model's. What we save holds the shift."""
    model, truth = started(llama, config), logits(llama(), tokens())
    model.save_pretrained(tmp_path / "released", selected_adapters=["default"])
    save_model(model, tmp_path / "ours")

    def on_original_base(name: str) -> torch.Tensor:
        return logits(PeftModel.from_pretrained(llama(), tmp_path / name).eval(), tokens())

    assert (on_original_base("released") - truth).std() > 0.5 * truth.std()
    torch.testing.assert_close(on_original_base("ours"), truth, rtol=0, atol=1e-5)


@each
def test_files_name_no_path_of_this_machine_and_repeat(config: AnyAdapter, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")

    def from_disk() -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()

    for name in ("one", "two"):
        save_model(trained(from_disk, config), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in files:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert str(tmp_path).encode() not in content
