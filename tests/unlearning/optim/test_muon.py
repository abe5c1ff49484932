"""Muon against its formula in float64, AdamW beside it against PyTorch's, and which weights go where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lethe.config.adapter import Lora
from lethe.config.optimizer import AdamW
from lethe.config.optimizer import Muon as MuonConfig
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.unlearning.optim import make_optimizer, trained_weights
from tests.unlearning import zero_world


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)], ids=str)
def test_a_step_is_the_orthogonal_factor_of_the_momentum_up_to_newton_schulz(
    shape: tuple[int, int], nesterov: bool
) -> None:
    """Of a momentum U S V^T it is lr .2 sqrt(40) U T V^T, T what five times 3.4445 x - 4.775 x^3 + 2.0315 x^5 make of
    S / |S|, near 1. PyTorch multiplies in bfloat16."""
    g = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(side, 24, generator=g, dtype=torch.float64))[0] for side in shape)
    weight = torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
    config = MuonConfig(learning_rate=0.01, weight_decay=0.1, nesterov=nesterov)
    optimizer = make_optimizer(config, [{"params": [weight], "hidden": True}])
    m = torch.zeros(24, dtype=torch.float64)
    for _ in range(2):
        values, before = torch.rand(24, generator=g, dtype=torch.float64) + 0.1, weight.detach().clone()
        weight.grad = u * values @ v.T
        optimizer.step()
        m = 0.95 * m + 0.05 * values
        x = 0.05 * values + 0.95 * m if nesterov else m
        x = x / x.norm()
        for _ in range(5):
            x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
        assert ((x > 0.65) & (x < 1.2)).all()
        moved = u.T @ (0.999 * before - weight.detach()) @ v / (0.01 * 0.2 * 40**0.5)
        torch.testing.assert_close(moved, torch.diag(x), rtol=0, atol=0.02)
    torch.testing.assert_close(optimizer.state[weight]["momentum_buffer"], u * m @ v.T)


def test_other_weights_take_adamws_steps_and_a_rate_set_from_outside_is_everybodys() -> None:
    g = torch.Generator().manual_seed(0)

    def stepped(config: MuonConfig | AdamW, rest: Tensor, hidden: Tensor) -> torch.optim.Optimizer:
        groups = [{"params": [hidden], "hidden": True}] if isinstance(config, MuonConfig) else []
        optimizer = make_optimizer(config, [*groups, {"params": [rest]}])
        for step in range(3):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (1 + step)
            rest.grad, hidden.grad = rest.detach() - 1, hidden.detach()
            optimizer.step()
        return optimizer

    first, second = (torch.linspace(-2, 2, 12).view(3, 4).requires_grad_() for _ in range(2))
    matrix = torch.randn(4, 4, generator=g).requires_grad_()
    norm = float(matrix.detach().norm())
    both = stepped(MuonConfig(weight_decay=0.2), first, matrix)
    stepped(AdamW(weight_decay=0.2), second, matrix)
    assert torch.equal(first, second)
    assert float(matrix.detach().norm()) < norm
    assert {len(group["params"]) for group in both.param_groups} == {1}
    assert set(both.state) == {first, matrix}, "one state, which checkpoints save"


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=12, n_layer=1, n_head=2))


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=40, hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        (gpt2, {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),  # tied; stored transposed; biases
        (llama, {f"self_attn.{x}_proj" for x in "qkvo"} | {f"mlp.{x}_proj" for x in ("gate", "up", "down")}),
        (lambda: zero_world.network("experts adamw").get_base_model(), None),
    ],
    ids=["gpt2", "llama", "adapters on experts"],
)
def test_hidden_are_the_matrices_of_linear_layers_but_the_head(model: object, hidden: set[str] | None) -> None:
    assert callable(model)
    net: PreTrainedModel = model()
    names = {weight: name for name, weight in net.named_parameters() if weight.requires_grad}
    groups = trained_weights(MuonConfig(), ScoredLM(net))
    found = [[names.pop(weight) for weight in group["params"]] for group in groups]
    assert not names, "each weight is in one of both groups"
    assert [group["hidden"] for group in groups] == [True, False]
    if hidden is None:
        assert found[0]
        assert all("lora_" in name for name in found[0])
        assert not found[1]
    else:
        assert {".".join(name.split(".")[-3:-1]) for name in found[0]} == hidden
        assert all(name.endswith(".weight") for name in found[0])
    assert all(isinstance(weight, Tensor) for weight in trained_weights(AdamW(), net)), "others get no groups"


def test_lora_alone_leaves_adamw_nothing() -> None:
    net = attach(llama(), Lora(rank=2), seed=0)
    optimizer = make_optimizer(MuonConfig(), trained_weights(MuonConfig(), net))
    assert [group["params"][0].ndim for group in optimizer.param_groups] == [2]
