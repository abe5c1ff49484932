"""Adapters on mixtures of experts, whose matrices are stacked in one parameter of each layer."""

from __future__ import annotations

import pytest
import torch

from lethe.config.adapter import Fila, Lora, Pissa
from lethe.errors import UserError
from lethe.models.adapters import attach, check_adapter, target_modules, target_stacks
from tests.models.architectures import FAMILIES
from tests.models.small import disturb, logits, start_of, tokens


def trained(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def test_all_linear_reaches_attention_and_experts() -> None:
    """Rank 2 on 4 experts of 96 x 32 and 32 x 48, and on four layers of attention, in each of two layers."""
    model = FAMILIES["mixtral"].build()
    assert len(target_modules(model, "all-linear")) == 8
    assert len(target_stacks(model, "all-linear")) == 4
    experts, attention = 4 * 2 * (96 + 32 + 32 + 48), 2 * (2 * (32 + 32) + 2 * (32 + 16))
    assert trained(attach(model, Lora(rank=2), seed=0)) == 2 * (experts + attention)


def test_experts_are_adapted_by_name_and_left_out_by_name() -> None:
    down = FAMILIES["mixtral"].build()
    assert target_stacks(down, "down_proj") == [f"model.layers.{i}.mlp.experts.down_proj" for i in (0, 1)]
    assert trained(attach(down, Lora(rank=2, targets="down_proj"), seed=0)) == 2 * 4 * 2 * (32 + 48)
    query = FAMILIES["mixtral"].build()
    assert trained(attach(query, Lora(rank=2, targets="q_proj"), seed=0)) == 2 * 2 * (32 + 32)
    with pytest.raises(UserError, match=r"no linear layer matches 'router'.*down_proj, gate_up_proj"):
        target_modules(FAMILIES["mixtral"].build(), "router")


def test_a_rank_larger_than_an_expert_is_refused() -> None:
    with pytest.raises(UserError, match=r"adapter.rank 25 is larger than .*experts.down_proj, a layer of 32 x 24"):
        check_adapter(FAMILIES["qwen3_moe"].build(), Lora(rank=25, targets="down_proj,gate_up_proj"))


def test_a_quantised_shared_expert_is_refused() -> None:
    model = FAMILIES["qwen2_moe"].build()
    gate = model.model.layers[1].mlp.shared_expert.gate_proj
    gate.weight = torch.nn.Parameter(gate.weight.detach().to(torch.uint8), requires_grad=False)
    check_adapter(model, Lora(rank=2, targets="q_proj"))
    with pytest.raises(UserError, match=r"layers.1.mlp.shared_expert.gate_proj is quantised, and in a mixture of exp"):
        check_adapter(model, Lora(rank=2))


@pytest.mark.parametrize("kind", [Pissa, Fila])
def test_principal_directions_of_experts_are_refused_with_their_share(kind: type[Pissa]) -> None:
    with pytest.raises(UserError, match=rf"{kind().name} starts from .* \(86% of the linear weights\): take lora, or"):
        check_adapter(FAMILIES["mixtral"].build(), kind(rank=2))


def test_plain_layers_beside_experts_start_in_their_principal_directions() -> None:
    """Layers of a shared expert, which peft mistakes for stacked ones, are adapted as parameters."""
    build, config = FAMILIES["qwen2_moe"].build, Pissa(rank=2, targets="q_proj, shared_expert.gate_proj")
    model = attach(build(), config, seed=0, initial=start_of(build(), config))
    truth = logits(build(), tokens())
    torch.testing.assert_close(logits(model.eval(), tokens()), truth, rtol=1e-4, atol=1e-4)
    names = [name.rpartition(".lora_")[0] for name, weight in model.named_parameters() if weight.requires_grad]
    assert {name.rpartition(".")[2] for name in names} == {"q_proj", "gate_proj"}
    disturb(model)
    assert (logits(model, tokens()) - truth).abs().max() > 1e-2
