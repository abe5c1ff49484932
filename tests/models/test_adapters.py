"""What trains, what stays, and how adapters start."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lethe.config.adapter import AnyAdapter, Fila, FullParameters, Lora, Pissa, Vila
from lethe.errors import UserError
from lethe.models.adapters import attach, check_adapter, target_modules
from tests.models.small import disturb, gpt2, llama, logits, start_of, started, tokens

FILA = Fila(rank=4)


def adapters(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_every_configuration_is_known() -> None:
    assert set(get_args(get_args(AnyAdapter)[0])) == {FullParameters, Lora, Pissa, Fila, Vila}


def test_full_trains_everything_in_the_same_object() -> None:
    model = llama().requires_grad_(False)
    assert attach(model, FullParameters(), seed=0) is model
    assert trainable(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("make", [llama, gpt2])
def test_lora_starts_as_the_base_and_trains_only_itself(make) -> None:
    model = attach(make(), Lora(rank=4, alpha_over_rank=2), seed=0)
    assert torch.equal(logits(model, tokens()), logits(make(), tokens()))
    assert trainable(model) == set(adapters(model))
    assert len(trainable(model)) > 0
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
    with pytest.raises(UserError, match="choose from all-linear, down_proj, gate_proj, k_proj"):
        attach(llama(), Lora(targets=targets), seed=0)


def test_a_rank_larger_than_a_layer_is_refused() -> None:
    assert attach(llama(), Lora(rank=16), seed=0)
    for kind in (Lora, Pissa, Fila):
        with pytest.raises(UserError, match=r"rank 17 .*\.k_proj, a layer of 16 x 32: choose at most 16"):
            check_adapter(llama(), kind(rank=17))
        with pytest.raises(UserError, match="no linear layer matches 'c_attn': choose from all-linear, down_proj"):
            check_adapter(llama(), kind(targets="c_attn"))
    assert attach(llama(), Lora(rank=32, targets="q_proj"), seed=0)


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("config", [FILA, Pissa(rank=4)], ids=lambda c: c.name)
def test_principal_starts_are_the_base_on_unmoved_weights(config: Pissa, make) -> None:
    model, base = started(make, config), make()
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
    """Peft marks every active adapter as trainable when it enables adapters again."""
    model = started(llama, FILA)
    before = trainable(model)
    with model.disable_adapter():
        pass
    assert trainable(model) == before
    assert model.active_adapters == ["default", "start"]


def test_fila_gradients_equal_those_of_moved_base_weights() -> None:
    """The frozen negative adapter gives the gradients of the published form, W - s B0 A0."""
    ours, base = started(llama, FILA), llama()
    with torch.no_grad():
        for name, (a, b) in start_of(base, FILA).items():
            base.get_submodule(name).weight -= FILA.alpha_over_rank * b @ a
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


@pytest.mark.parametrize("make", [llama, gpt2])
def test_pissa_is_pefts_own(make) -> None:
    """The same adapter, function and gradients as `init_lora_weights="pissa"`, which moves the base instead."""
    ours = started(make, Pissa(rank=4))
    settings = {"r": 4, "lora_alpha": 8, "target_modules": target_modules(make(), "all-linear")}
    theirs = get_peft_model(make(), LoraConfig(**settings, init_lora_weights="pissa", fan_in_fan_out=make is gpt2))
    torch.testing.assert_close(logits(ours, tokens()), logits(theirs, tokens()), rtol=0, atol=1e-4)
    for model in (ours, theirs):
        model(input_ids=tokens(), labels=tokens()).loss.backward()
    for name, p in theirs.named_parameters():
        if p.requires_grad and "lora_A" in name:
            a, b = (dict(ours.named_parameters())[part] for part in (name, name.replace("lora_A", "lora_B")))
            other = dict(theirs.named_parameters())[name.replace("lora_A", "lora_B")]
            torch.testing.assert_close(b @ a, other @ p, rtol=1e-3, atol=1e-5)
            # Singular vectors have no sign of their own: compare what a step does to the product.
            torch.testing.assert_close(b @ a.grad + b.grad @ a, other @ p.grad + other.grad @ p, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("config", [FILA, Pissa()], ids=lambda c: c.name)
def test_no_start_is_a_programming_error(config: Pissa) -> None:
    with pytest.raises(ValueError, match="initial"):
        attach(llama(), config, seed=0)
