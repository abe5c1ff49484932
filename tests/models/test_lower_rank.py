"""Adapters cut to a lower rank: the nearest change of that rank, with the error that is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lethe.config.adapter import Fila, Lora, Pissa
from lethe.models.adapters import lora_factors, lora_layer
from lethe.models.lower_rank import saved_rank, write_at_rank
from lethe.models.saving import merged, save_model
from tests.models.small import disturb, gpt2, llama, logits, started, tokens


def on_the_base(folder: Path, make: Callable) -> PeftModel:
    return PeftModel.from_pretrained(make(), folder).eval()


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize(
    "config", [Fila(rank=4), Pissa(rank=4, alpha_over_rank=1.5), Lora(rank=8)], ids=lambda c: c.name
)
def test_stock_peft_loads_the_nearest_change_of_that_rank_with_the_error_that_is_told(
    config: Lora, make: Callable, tmp_path: Path
) -> None:
    model = started(make, config)
    disturb(model, 0.2)
    save_model(model, tmp_path / "saved")
    assert saved_rank(tmp_path / "saved") == 8
    mean, worst, layer = write_at_rank(tmp_path / "saved", tmp_path / "cut", 4)
    settings = json.loads((tmp_path / "cut/adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (4, 4 * config.alpha_over_rank)
    cut, base = merged(on_the_base(tmp_path / "cut", make)).state_dict(), make().state_dict()
    errors = {}
    for name, truth in merged(model).state_dict().items():
        change, kept = (m - base[name] for m in (truth, cut[name]))
        if change.norm() > 1e-6:
            s = torch.linalg.svdvals(change.double())
            assert torch.linalg.matrix_rank(kept, rtol=1e-4) <= 4
            errors[name.removesuffix(".weight")] = float((kept - change).norm() / change.norm())
            assert errors[name.removesuffix(".weight")] == pytest.approx(float(s[4:].norm() / s.norm()), abs=1e-4)
    assert min(errors.values()) > 0.01
    assert mean == pytest.approx(sum(errors.values()) / len(errors), abs=1e-4)
    assert (worst, layer) == (pytest.approx(max(errors.values()), abs=1e-4), max(errors, key=lambda name: errors[name]))


def test_a_change_of_no_higher_rank_is_kept_whole(tmp_path: Path) -> None:
    """Only B moved by a multiple of B0: a change of rank 4 in an adapter of rank 8."""
    model = started(llama, Fila(rank=4))
    with torch.no_grad():
        for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
            lora_factors(lora_layer(model, name), "default")[1].mul_(1.5)
    truth = logits(model, tokens())
    assert (truth - logits(llama(), tokens())).abs().max() > 0.05
    save_model(model, tmp_path / "saved")
    assert write_at_rank(tmp_path / "saved", tmp_path / "cut", 4).worst < 1e-5
    torch.testing.assert_close(logits(on_the_base(tmp_path / "cut", llama), tokens()), truth, rtol=0, atol=1e-5)


def test_what_stands_beside_the_weights_comes_along_and_a_second_time_replaces_the_first(tmp_path: Path) -> None:
    save_model(started(llama, Fila(rank=4)), tmp_path / "saved")
    (tmp_path / "saved/prompt.json").write_text("{}")
    for rank in (3, 2):
        write_at_rank(tmp_path / "saved", tmp_path / "saved/cut", rank)
    assert {path.name for path in (tmp_path / "saved/cut").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "prompt.json",
    }  # fmt: skip
    ranks = {
        t.shape[0 if "lora_A" in name else 1]
        for name, t in load_file(tmp_path / "saved/cut/adapter_model.safetensors").items()
    }
    assert ranks == {2}
    assert saved_rank(tmp_path / "saved/cut") == 2
