"""Trainable weights: all of a model, or low-rank adapters on its linear layers (through peft)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.config.adapter import AnyAdapter, FullParameters, Lora, Pissa
from lethe.errors import UserError
from lethe.models.forward import output_embeddings

if TYPE_CHECKING:  # peft takes three seconds, and a driver only asks what fits
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer, LoraModel

TRAINED, START = "default", "start"  # peft adapter names: what trains, and the frozen negative of its start

Initial = Mapping[str, tuple[Tensor, Tensor]]  # module name -> (A0 [r, in], B0 [out, r])


def attach(
    model: PreTrainedModel, config: AnyAdapter, *, seed: int, initial: Initial | None = None
) -> PreTrainedModel | PeftModel:
    """Mark the trainable weights of `model`, adding adapters in place, and return it; under an adapter the base weights
    never move.

    Call it on a fresh model object, before an engine shards it. The start depends on `seed` and the layers' names
    alone, and the global random state is left as it was. `initial`: the start of a PiSSA or FILA adapter
    (`fila.truncated`). Raises UserError for targets that match no linear layer and for a rank larger than a layer.
    """
    if isinstance(config, FullParameters):
        return model.requires_grad_(True)
    if isinstance(config, Pissa) and initial is None:
        raise ValueError(f"a {config.name} adapter needs `initial`: see lethe.models.fila")
    from peft import get_peft_model

    check_adapter(model, config)
    names = target_modules(model, config.targets)
    with torch.random.fork_rng(devices=[]):  # peft's layers draw weights, which are replaced below
        peft_model = get_peft_model(model, _lora_config(model, names, config))
        if isinstance(config, Pissa):
            peft_model.add_adapter(START, _lora_config(model, names, config))
    if initial is not None and isinstance(config, Pissa):
        _start_at(peft_model, names, initial)
    else:
        _start_lora(peft_model, names, seed)
    return peft_model


def check_adapter(model: PreTrainedModel, config: Lora) -> None:
    """Raise UserError for targets that match nothing and for a rank larger than a layer. Weights on the meta device
    are enough."""
    _check_rank(model, target_modules(model, config.targets), config.rank)


def target_modules(model: PreTrainedModel, targets: str) -> list[str]:
    """Return the full names of the linear layers that `targets` means, in the model's order.

    'all-linear' is every linear layer but the head; otherwise comma-separated names ('q_proj'), dotted ends of
    names ('mlp.c_fc') or patterns ('*.layers.0.*'). The head is never adapted, since it may be tied to the
    embedding. Raises UserError for a part that matches nothing.
    """
    head = output_embeddings(model)
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    body = [name for name, module in linear.items() if module is not head]
    if targets.lower() == "all-linear":
        if not body:
            raise UserError(f"adapter.targets: {type(model).__name__} has no linear layer besides its head")
        return body
    parts = [part.strip() for part in targets.split(",") if part.strip()]
    for part in parts or [targets]:
        if not any(_matches(name, part) for name in body):
            short = sorted({name.rpartition(".")[2] for name in body})
            known = ", ".join(["all-linear", *short])
            raise UserError(f"adapter.targets: no linear layer matches {part!r}: choose from {known}")
    return [name for name in body if any(_matches(name, part) for part in parts)]


def stored_weight(module: nn.Module) -> Tensor:
    """Return a linear layer's weight as it is stored: [out, in], but [in, out] for GPT-2's Conv1D."""
    return cast(Tensor, module.weight)  # modules are typed to hold tensors or modules under any name


def weight_of(module: nn.Module) -> Tensor:
    """Return a linear layer's weight as [out, in]."""
    return stored_weight(module).T if isinstance(module, Conv1D) else stored_weight(module)


def _matches(name: str, part: str) -> bool:
    return name == part or name.endswith(f".{part}") or fnmatchcase(name, part)


def _check_rank(model: PreTrainedModel, names: list[str], rank: int) -> None:
    for name in names:
        rows, columns = weight_of(model.get_submodule(name)).shape
        if rank > min(rows, columns):
            raise UserError(
                f"adapter.rank {rank} is larger than {name}, a layer of {rows} x {columns}: "
                f"choose at most {min(rows, columns)}"
            )


def _lora_config(model: PreTrainedModel, names: list[str], config: Lora) -> LoraConfig:
    from peft import LoraConfig

    alpha = config.alpha_over_rank * config.rank
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=int(alpha) if alpha.is_integer() else cast(int, alpha),  # peft takes fractions, too
        lora_dropout=0.0,
        target_modules=list(names),
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
        init_lora_weights=False,
    )


def lora_layer(model: PeftModel, name: str) -> LoraLayer:
    """Return the adapted layer that replaces the base model's layer `name`."""
    return cast("LoraLayer", model.get_base_model().get_submodule(name))  # peft put it there


def lora_factors(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor]:
    """Return the weights A [r, in] and B [out, r] of one adapter of a layer."""
    return stored_weight(layer.lora_A[adapter]), stored_weight(layer.lora_B[adapter])


@torch.no_grad()
def _start_lora(model: PeftModel, names: list[str], seed: int) -> None:
    """Set A uniform in +-1/sqrt(in) (as peft and Hu et al. 2021 do) and B to zero, in place."""
    for name in names:
        a, b = lora_factors(lora_layer(model, name), TRAINED)
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        start = nn.init.kaiming_uniform_(torch.empty(a.shape), a=math.sqrt(5), generator=generator)
        a.copy_(start)
        b.zero_()


@torch.no_grad()
def _start_at(model: PeftModel, names: list[str], initial: Initial) -> None:
    """Set a trained adapter (A0, B0) beside a frozen (A0, -B0), in place: the function of W, with the gradients of
    W - s B0 A0."""
    # Moving W there, as FILA's released code and peft's `init_lora_weights="pissa"` do, would cost the base that trials
    # share and that references are computed with, and an SVD in every trial.
    for name in names:
        layer = lora_layer(model, name)
        a0, b0 = initial[name]
        for adapter, sign in ((TRAINED, 1), (START, -1)):
            a, b = lora_factors(layer, adapter)
            a.copy_(a0)
            b.copy_(sign * b0)
        # peft's own half-frozen variants declare the same; without it every `disable_adapter()` would end by marking
        # the frozen adapter as trainable.
        layer.frozen_peft_weight_names = {**layer.frozen_peft_weight_names, START: ("lora_A", "lora_B")}
    cast("LoraModel", model.base_model).set_adapter([TRAINED, START])  # peft types it as any module
