"""FILA's row weights against plain sums of squared gradients (docs/METHODS.md section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from lethe.config.adapter import Fila
from lethe.data.template import Encoded
from lethe.models import fisher
from lethe.models.adapters import target_modules, weight_of
from lethe.models.fisher import evenly_spread, layer_groups, row_weights
from lethe.scaling.instruments import TensorMemory
from tests.models.small import encoded, gpt2, llama


def squared(model: torch.nn.Module, names: Sequence[str], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """The squared gradient [out, in] of the mean loss over all answer tokens of a padded batch."""
    width = max(len(row.ids) for row in rows)
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.prompt_length : len(row.ids)] = ids[i, row.prompt_length : len(row.ids)]
    model.zero_grad()
    model(input_ids=ids, labels=labels).loss.backward()
    found = {}
    for name in names:
        module = model.get_submodule(name)
        grad = module.weight.grad if weight_of(module) is module.weight else module.weight.grad.T
        found[name] = grad.square()
    model.zero_grad()
    return found


def answer_tokens(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) - row.prompt_length for row in rows)


@pytest.mark.parametrize("held", [fisher.HELD_BYTES, 0], ids=["one group", "layer by layer"])
@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize(
    "options",
    [
        {"fisher": "example", "fisher_eps": 0.1},
        {"fisher": "example", "fisher_eps": 1e-3, "fisher_eps_relative": False},
        {"fisher": "batch", "fisher_batch_size": 3, "fisher_eps": 1e-5, "fisher_eps_relative": False},
    ],
    ids=["as published", "absolute eps", "as released"],
)
def test_row_weights_are_the_fisher_as_defined(
    options: dict[str, Any], make: Callable, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher, "HELD_BYTES", held)
    model, config = make(), Fila(**options)
    names = target_modules(model, "all-linear")
    expected = []
    for rows in (encoded(5), encoded(4, seed=1)):
        size = 1 if config.fisher == "example" else 3
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        shares = [1 / len(rows) if size == 1 else answer_tokens(part) / answer_tokens(rows) for part in parts]
        squares = [squared(model, names, part) for part in parts]
        expected.append({n: sum(s * q[n] for s, q in zip(shares, squares, strict=True)) for n in names})
    result = row_weights(model, encoded(5), encoded(4, seed=1), config)
    for name in names:
        f, r = expected[0][name], expected[1][name]
        eps = config.fisher_eps * (r.mean() if config.fisher_eps_relative else 1)
        torch.testing.assert_close(result[name], (f / (r + eps)).sum(1).sqrt(), rtol=1e-4, atol=1e-6)


def test_rows_are_spread_over_both_whole_sets() -> None:
    assert evenly_spread(range(400), 40) == list(range(0, 400, 10))
    assert evenly_spread(range(10), 4) == [0, 2, 5, 7]
    assert evenly_spread("abc", 5) == ["a", "b", "c"]
    forget, retain = encoded(5), encoded(9, seed=1)
    chosen = row_weights(llama(), forget, retain, Fila(fisher_rows=2))
    named = row_weights(llama(), [forget[0], forget[2]], [retain[0], retain[4]], Fila())
    assert all(torch.equal(chosen[name], named[name]) for name in named)


def test_without_a_number_all_forget_rows_count_and_as_many_retain_rows() -> None:
    forget, retain = encoded(45), encoded(90, seed=1)
    chosen = row_weights(llama(), forget, retain, Fila(fisher_rows=None, targets="q_proj"))
    named = row_weights(llama(), forget, retain[::2], Fila(fisher_rows=45, targets="q_proj"))
    fewer = row_weights(llama(), forget, retain, Fila(targets="q_proj"))
    assert all(torch.equal(chosen[name], named[name]) for name in named)
    assert not any(torch.equal(chosen[name], fewer[name]) for name in named)


@pytest.mark.parametrize("wide", [False, True], ids=["a decoder layer at a time", "one group"])
def test_no_set_of_gradients_is_held(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside F_r of one group, the peak has the gradient of one layer, its square and the activations of one row."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=64,
        )
    ).eval()  # fmt: skip
    names = target_modules(model, "all-linear")
    sizes = [4 * weight_of(model.get_submodule(name)).numel() for name in names]
    decoder_layer = sum(sizes) // 4
    monkeypatch.setattr(fisher, "HELD_BYTES", sum(sizes) if wide else decoder_layer)
    assert len(layer_groups(model, names)) == (1 if wide else 4)
    row_weights(model, encoded(1), encoded(1), Fila(fisher_rows=1))  # what is made once, such as masks
    with TensorMemory() as memory:
        row_weights(model, encoded(3), encoded(3, seed=1), Fila())
    activations = 4 * 12 * (12 * 128 + 8 * 384) * 4  # at most 12 tokens: a few tensors of each width a layer
    held = sum(sizes) if wide else decoder_layer
    assert held < memory.peak < held + 3 * max(sizes) + activations
    assert memory.peak < 2 * sum(sizes), "F_r and a set of gradients"


def test_a_layer_that_no_row_reaches_has_no_weight() -> None:
    """An expert that no token goes to."""
    model = llama()
    model.model.layers[0].mlp.unused = torch.nn.Linear(4, 4, bias=False)
    weights = row_weights(model, encoded(2), encoded(2, seed=1), Fila())
    assert weights["model.layers.0.mlp.unused"].tolist() == [0, 0, 0, 0]
    assert all(weights["model.layers.0.mlp.up_proj"] > 0)


def test_the_model_is_left_as_it_was() -> None:
    model = llama().train().requires_grad_(False)
    model.get_submodule("model.norm").requires_grad_(True)
    up = model.get_submodule("model.layers.0.mlp.up_proj").weight
    up.grad = torch.ones_like(up)
    before = {name: (p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()}
    row_weights(model, encoded(2), encoded(2, seed=1), Fila(rank=2))
    assert model.training
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0])
        assert p.requires_grad == before[name][1]
        assert p.grad is before[name][2]
    assert torch.equal(up.grad, torch.ones_like(up))
