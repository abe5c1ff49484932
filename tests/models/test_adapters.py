"""What trains, what stays, and how adapters start."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from peft import PeftModel

from lethe.config.adapter import AnyAdapter, Fila, FullParameters, Lora
from lethe.errors import BadInput
from lethe.models import fila
from lethe.models.adapters import attach, target_modules
from tests.models.small import disturb, encoded, gpt2, llama, logits, tokens

FILA = Fila(rank=4)


def with_fila(make=llama, config: Fila = FILA) -> PeftModel:
    cached = fila.start_factors(make(), encoded(3), encoded(3, seed=1), config)
    return attach(make(), config, seed=0, initial=fila.fila_start(cached, config))


def adapters(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_every_configuration_is_known() -> None:
    assert set(get_args(get_args(AnyAdapter)[0])) == {FullParameters, Lora, Fila}


def test_full_trains_everything_in_the_same_object() -> None:
    model = llama().requires_grad_(False)
    assert attach(model, FullParameters(), seed=0) is model
    assert trainable(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("make", [llama, gpt2])
def test_lora_starts_as_the_base_and_trains_only_itself(make) -> None:
    model = attach(make(), Lora(rank=4, alpha_over_rank=2), seed=0)
    assert torch.equal(logits(model, tokens()), logits(make(), tokens()))
    assert trainable(model) == set(adapters(model)) and len(trainable(model)) > 0
    assert (model.peft_config["default"].r, model.peft_config["default"].lora_alpha) == (4, 8)
    assert not any("lm_head" in name for name in trainable(model))


def test_the_start_depends_on_the_seed_and_on_nothing_global() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = adapters(attach(llama(), Lora(), seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = adapters(attach(llama(), Lora(), seed=5))
    other = adapters(attach(llama(), Lora(), seed=6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[n], other[n]) == ("lora_B" in n) for n in first)
    a = [t for name, t in first.items() if "lora_A" in name]
    assert len({t.flatten()[0].item() for t in a}) == len(a)
    assert all(0.9 / t.shape[1] ** 0.5 < t.abs().max() <= 1 / t.shape[1] ** 0.5 for t in a)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", 14),
        ("q_proj", 2),
        ("q_proj, v_proj", 4),
        ("mlp.down_proj", 2),
        ("*.layers.1.*", 7),
        ("model.layers.0.self_attn.k_proj", 1),
    ],
)
def test_targets(targets: str, expected: int) -> None:
    model = llama()
    names = target_modules(model, targets)
    assert len(names) == expected
    peft_model = attach(model, Lora(targets=targets), seed=0)
    assert len(trainable(peft_model)) == 2 * expected
    assert all(any(f".{name}.lora_" in p for p in trainable(peft_model)) for name in names)


@pytest.mark.parametrize("targets", ["c_attn", "q_proj,typo", "lm_head", ""])
def test_targets_that_match_nothing_name_the_choices(targets: str) -> None:
    with pytest.raises(BadInput, match="choose from all-linear, down_proj, gate_proj, k_proj"):
        attach(llama(), Lora(targets=targets), seed=0)


def test_a_rank_larger_than_a_layer_is_refused() -> None:
    assert attach(llama(), Lora(rank=16), seed=0)
    with pytest.raises(BadInput, match=r"rank 17 .*\.k_proj, a layer of 16 x 32: choose at most 16"):
        attach(llama(), Lora(rank=17), seed=0)
    assert attach(llama(), Lora(rank=32, targets="q_proj"), seed=0)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_fila_starts_as_the_base_on_unmoved_weights(make) -> None:
    model, base = with_fila(make), make()
    torch.testing.assert_close(logits(model, tokens()), logits(base, tokens()), rtol=0, atol=1e-5)
    assert all("lora_" in name and ".default." in name for name in trainable(model))
    before = adapters(model)
    disturb(model)
    moved = {name for name, value in adapters(model).items() if not torch.equal(value, before[name])}
    assert moved == trainable(model)
    assert (logits(model, tokens()) - logits(base, tokens())).abs().max() > 0.05
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens()), logits(base, tokens()))


def test_the_frozen_half_stays_frozen_and_active_after_disabling() -> None:
    """peft marks every active adapter as trainable when it enables adapters again."""
    model = with_fila()
    before = trainable(model)
    with model.disable_adapter():
        pass
    assert trainable(model) == before and model.active_adapters == ["default", "start"]


def test_fila_gradients_equal_those_of_moved_base_weights() -> None:
    """The frozen negative adapter gives the gradients of the published form, W - s B0 A0."""
    config = FILA
    cached = fila.start_factors(llama(), encoded(3), encoded(3, seed=1), config)
    start = fila.fila_start(cached, config)
    ours = attach(llama(), config, seed=0, initial=start)
    base = llama()
    with torch.no_grad():
        for name, (a, b) in start.items():
            base.get_submodule(name).weight -= config.alpha_over_rank * b @ a
    theirs = attach(base, Lora(rank=4), seed=0)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_" in name:
                p.copy_(dict(ours.named_parameters())[name])
    for model in (ours, theirs):
        model(input_ids=tokens(), labels=tokens()).loss.backward()
    truth = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    for name, p in ours.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, truth[name], rtol=1e-3, atol=1e-6)


def test_fila_without_its_start_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="initial"):
        attach(llama(), FILA, seed=0)
