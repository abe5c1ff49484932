"""Which weights an objective trains, by their names, and the states of one layer in every family."""

from __future__ import annotations

import pytest
import torch

from lethe.config.adapter import FullParameters, Lora
from lethe.errors import UserError
from lethe.models.adapters import attach
from lethe.models.forward import Tap, layer_states
from lethe.models.trained import PUBLISHED, trained_rule
from tests.models.architectures import FAMILIES
from tests.models.small import gpt2, llama

FULL, LORA = FullParameters(), Lora(rank=2)


def test_published_are_the_down_projections_of_the_layer_and_two_below() -> None:
    model = FAMILIES["llama"].build()
    names = [name for name, _ in model.named_parameters()]
    for layer, expected in ((0, [0]), (1, [0, 1])):
        rule = trained_rule(model, FULL, PUBLISHED, layer)
        assert [name for name in names if rule(name)] == [f"model.layers.{k}.mlp.down_proj.weight" for k in expected]
    rule = trained_rule(model, FULL, PUBLISHED, 1)
    assert [rule(f"model.layers.{k}.mlp.down_proj.weight") for k in range(3)] == [True, True, False]
    assert not rule("model.layers.9.mlp.experts.1.down_proj.weight"), "an expert's number is no layer's"
    assert rule("model.layers.1.mlp.experts.9.down_proj.weight")


@pytest.mark.parametrize(
    ("family", "leaf"), [("gpt2", "mlp.c_proj"), ("opt", "fc2"), ("bloom", "dense_4h_to_h"), ("mixtral", "down_proj")]
)
def test_published_ones_of_families_with_other_names(family: str, leaf: str) -> None:
    model = FAMILIES[family].build()
    rule = trained_rule(model, FULL, PUBLISHED, 0)
    found = [name for name, _ in model.named_parameters() if rule(name)]
    assert found
    assert all(leaf in name and ".0." in name for name in found), found


@pytest.mark.parametrize("tied", [False, True])
def test_nothing_behind_the_layer_trains_without_logits(tied: bool) -> None:
    """Exactly the weights on which the layer's output depends, as autograd finds them."""
    model = llama(tied=tied)
    rule = trained_rule(model, FULL, None, 0, behind=False)
    ids = torch.arange(6).unsqueeze(0)
    states = layer_states(model, ids, Tap(0, torch.arange(6)))
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(states.sum(), list(named.values()), allow_unused=True)
    reached = {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
    assert {name for name in named if rule(name)} == reached
    assert "model.layers.1.mlp.up_proj.weight" not in reached
    assert "model.layers.0.mlp.up_proj.weight" in reached


def test_adapters_lie_on_what_trains_alone() -> None:
    model = llama()
    rule = trained_rule(model, LORA, r"layers\.1\..*(q|v)_proj")
    adapted = attach(model, LORA, seed=0, trains=rule)
    layers = {name.partition(".lora_")[0] for name, p in adapted.named_parameters() if p.requires_grad}
    assert layers == {f"base_model.model.model.layers.1.self_attn.{x}_proj" for x in "qv"}


def test_full_training_freezes_the_rest() -> None:
    model = gpt2()
    attach(model, FULL, seed=0, trains=trained_rule(model, FULL, PUBLISHED, 1))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"transformer.h.{k}.mlp.c_proj.{x}" for k in (0, 1) for x in ("weight", "bias")}
    attach(model, FULL, seed=0)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("adapter", "pattern", "layer", "line"),
    [
        (FULL, PUBLISHED, 40, "objective.layer: 40: LlamaForCausalLM has 2 layers, 0 to 1"),
        (FULL, "c_proj", 1, "objective.trained: 'c_proj' trains nothing of LlamaForCausalLM: choose from the names of"),
        (Lora(targets="q_proj"), PUBLISHED, 1, "'published' trains nothing of adapter.targets q_proj: choose from"),
        (FULL, r"layers\.1\.", 0, "trains nothing of LlamaForCausalLM"),
    ],
)
def test_refusals(adapter: FullParameters | Lora, pattern: str, layer: int, line: str) -> None:
    with pytest.raises(UserError) as error:
        trained_rule(llama(), adapter, pattern, layer, behind=False)
    assert line in str(error.value)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.default])
def test_states_are_the_output_of_the_layer_whatever_its_path(family: str) -> None:
    model = FAMILIES[family].build()
    ids = torch.randint(3, 100, (2, 7), generator=torch.Generator().manual_seed(0))
    position = torch.tensor([0, 3, 6, 8, 13])
    with torch.no_grad():
        found = layer_states(model, ids, Tap(0, position))
        all_states = model(input_ids=ids, output_hidden_states=True).hidden_states
        truth = all_states[0 if family == "mamba" else 1]  # which leaves the embedding out
    torch.testing.assert_close(found, truth.flatten(0, 1)[position])
