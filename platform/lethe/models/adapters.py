"""Trainable weights: all of a language model, or low-rank adapters on its linear layers and experts (through peft).

Mixtures of experts keep the matrices of one layer's experts in one parameter [experts, out, in], which is no linear
layer: here a *stack*. peft adapts it as a parameter of its module, with factors for each expert.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.config.adapter import AnyAdapter, FullParameters, Lora, Pissa
from lethe.errors import UserError
from lethe.models.forward import output_embeddings
from lethe.models.language import language_model
from lethe.models.quantised import is_quantised, plain_weight

if TYPE_CHECKING:  # peft takes three seconds, and a driver only asks what fits
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer, LoraModel
    from peft.tuners.lora.layer import ParamWrapper

TRAINED, START = "default", "start"  # peft adapter names: what trains, and the frozen negative of its start

# Names of layers that peft takes for a mixture's experts, as checkpoints before transformers 5 had them, and then
# leaves unadapted: in a model with stacks they are adapted as parameters.
OLD_EXPERT_NAMES = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
# Of a Mamba mixer. Fused kernels read their weights past the layer, and so past an adapter; peft refuses some of them.
FUSED = frozenset({"x_proj", "dt_proj", "out_proj"})

Initial = Mapping[str, tuple[Tensor, Tensor]]  # module name -> (A0 [r, in], B0 [out, r])
Rule = Callable[[str], bool]  # name of a weight of the base model -> whether it may train, itself or by an adapter


def attach(
    model: PreTrainedModel,
    config: AnyAdapter,
    *,
    seed: int,
    initial: Initial | None = None,
    trains: Rule = lambda _: True,
) -> PreTrainedModel | PeftModel:
    """Mark the trainable weights of `model`, adding adapters in place, and return it; under an adapter the base weights
    never move.

    Call it on a fresh model object, before an engine shards it. The start depends on `seed` and the layers' names
    alone, and the global random state is left as it was. `initial`: the start of a PiSSA, FILA or VILA adapter
    (`fila.truncated`). What does not train by `trains` (`trained_rule`) is frozen, or gets no adapter. Raises UserError
    for targets that match no linear layer and for a rank larger than a layer.
    """
    if isinstance(config, FullParameters):
        return _language_weights_only(model, trains)
    if isinstance(config, Pissa) and initial is None:
        raise ValueError(f"a {config.name} adapter needs `initial`: see lethe.models.fila")
    from peft import get_peft_model

    check_adapter(model, config)
    names = [name for name in target_modules(model, config.targets) if trains(f"{name}.weight")]
    stacks = [name for name in target_stacks(model, config.targets) if trains(name)]
    with torch.random.fork_rng(devices=[]):  # peft's layers draw weights, which are replaced below
        peft_model = get_peft_model(model, _lora_config(model, names, stacks, config))
        if isinstance(config, Pissa):
            peft_model.add_adapter(START, _lora_config(model, names, stacks, config))
    if initial is not None and isinstance(config, Pissa):
        _start_at(peft_model, names, initial)
    else:
        _start_lora(peft_model, [*names, *stacks], seed)
    return peft_model


def _language_weights_only(model: PreTrainedModel, trains: Rule) -> PreTrainedModel:
    """Mark the weights of the text decoder and its head that train as trainable, and no others: a vision tower gets no
    gradient from text, and weight decay would move it."""
    name, decoder = language_model(model)
    model.requires_grad_(not name)
    decoder.requires_grad_(True)
    head = output_embeddings(model)
    if head is not None:
        head.requires_grad_(True)
    for name, weight in model.named_parameters():
        if weight.requires_grad and not trains(name):
            weight.requires_grad_(False)
    return model


def check_adapter(model: PreTrainedModel, config: Lora) -> None:
    """Raise UserError for targets that match nothing, for a rank larger than a layer, for quantised layers that peft
    takes for experts, and for a PiSSA, FILA or VILA adapter on stacks, which have no principal directions of their own.
    Weights on the meta device are enough."""
    names, stacks = target_modules(model, config.targets), target_stacks(model, config.targets)
    if stacks and isinstance(config, Pissa):
        raise UserError(
            f"adapter.name: {config.name} starts from single linear layers, and {stacks[0]} stacks the matrices of "
            f"several experts ({_share(model, stacks):.0%} of the linear weights): take lora, or name layers "
            f"in adapter.targets: {', '.join(_short_names(names))}"
        )
    for name in _mistaken(model, names):
        if not stored_weight(model.get_submodule(name)).is_floating_point():
            raise UserError(
                f"adapter.targets: {name} is quantised, and in a mixture of experts peft adapts it only as a plain "
                "weight: name other layers, or leave engine.quantisation out"
            )
    for name in names:
        _check_rank(name, features(model.get_submodule(name)), config.rank)
    for name in stacks:
        _, rows, columns = model.get_parameter(name).shape
        _check_rank(name, (rows, columns), config.rank)


def target_modules(model: PreTrainedModel, targets: str) -> list[str]:
    """Return the full names of the linear layers that `targets` means, in the model's order.

    'all-linear' is every linear layer of the language model but the head, routers of experts, gates of width one and
    what Mamba's kernels fuse; otherwise comma-separated names ('q_proj'), dotted ends of names ('mlp.c_fc') or
    patterns ('*.layers.0.*'). The head is never adapted, since it may be tied to the embedding. Raises UserError for a
    part that matches neither a layer nor a stack (`target_stacks`).
    """
    return _chosen(model, targets)[0]


def target_stacks(model: PreTrainedModel, targets: str) -> list[str]:
    """Return the full names of the stacked parameters that `targets` means, as in `target_modules`."""
    return _chosen(model, targets)[1]


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return every linear layer of the language model but its head, by its full name."""
    prefix, _ = language_model(model)
    head = output_embeddings(model)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and name.startswith(prefix)
    }


def stacks_of(model: PreTrainedModel) -> list[str]:
    """Return the full names of the parameters [experts, a, b] of the language model that stack matrices."""
    prefix, _ = language_model(model)
    return [
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if name.startswith(prefix) and not isinstance(module, nn.Conv1d)
        for leaf, weight in module.named_parameters(recurse=False)
        if weight.ndim == 3 and min(weight.shape) > 1
    ]


def stacked_weight(model: PreTrainedModel, name: str) -> Tensor:
    """Return a stacked parameter as [experts, out, in], whichever way it is stored."""
    weight = model.get_parameter(name)
    module = model.get_submodule(name.rpartition(".")[0])
    return weight.transpose(1, 2) if getattr(module, "is_transposed", False) else weight


def _adaptable(model: PreTrainedModel, name: str, module: nn.Module) -> bool:
    """Return whether an adapter on a linear layer can do what it should: routers choose experts, a gate of width one
    has no rank, and fused layers are read past the adapter."""
    parent, _, leaf = name.rpartition(".")
    router = "router" in leaf or "Router" in type(module).__name__ or "router" in parent.rpartition(".")[2]
    owner = model.get_submodule(parent)
    fused = leaf in FUSED and hasattr(owner, "A_log") and hasattr(owner, "D")
    return not router and not fused and min(features(module)) > 1


def _chosen(model: PreTrainedModel, targets: str) -> tuple[list[str], list[str]]:
    """Return the names of the layers and of the stacks that `targets` means. Raises UserError as `target_modules`."""
    body = [name for name, module in linear_layers(model).items() if _adaptable(model, name, module)]
    # A module with a state that others set (RecurrentGemma's) would no longer get it behind peft's wrapper.
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name in stacks_of(model)}
    stacks = [name for name, owner in owners.items() if not hasattr(owner, "recurrent_states")]
    if targets.lower() == "all-linear":
        if not body and not stacks:
            raise UserError(f"adapter.targets: {type(model).__name__} has no linear layer besides its head")
        return body, stacks
    parts = [part.strip() for part in targets.split(",") if part.strip()]
    for part in parts or [targets]:
        if not any(_matches(name, part) for name in [*body, *stacks]):
            known = ", ".join(["all-linear", *_short_names([*body, *stacks])])
            raise UserError(f"adapter.targets: no linear layer matches {part!r}: choose from {known}")
    chosen = [[name for name in names if any(_matches(name, part) for part in parts)] for names in (body, stacks)]
    return chosen[0], chosen[1]


def _short_names(names: list[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def _share(model: PreTrainedModel, stacks: list[str]) -> float:
    """Return the share of stacks in the linear weights of the language model."""
    stacked = sum(model.get_parameter(name).numel() for name in stacks)
    return stacked / (stacked + sum(math.prod(features(module)) for module in linear_layers(model).values()))


def stored_weight(module: nn.Module) -> Tensor:
    """Return a linear layer's weight as it is stored: [out, in], but [in, out] for GPT-2's Conv1D."""
    return cast(Tensor, module.weight)  # modules are typed to hold tensors or modules under any name


def weight_of(module: nn.Module) -> Tensor:
    """Return a linear layer's weight as [out, in]; of a quantised one, a copy of what it multiplies with."""
    if is_quantised(module):
        return plain_weight(module)
    return stored_weight(module).T if isinstance(module, Conv1D) else stored_weight(module)


def features(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of a linear layer."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    rows, columns = weight_of(module).shape
    return rows, columns


def _matches(name: str, part: str) -> bool:
    return name == part or name.endswith(f".{part}") or fnmatchcase(name, part)


def _check_rank(name: str, shape: tuple[int, int], rank: int) -> None:
    rows, columns = shape
    if rank > min(rows, columns):
        raise UserError(
            f"adapter.rank {rank} is larger than {name}, a layer of {rows} x {columns}: choose at most {min(shape)}"
        )


def _mistaken(model: PreTrainedModel, names: list[str]) -> list[str]:
    """Return the layers among `names` that peft would take for experts."""
    return [name for name in names if name.rpartition(".")[2] in OLD_EXPERT_NAMES] if stacks_of(model) else []


def _lora_config(model: PreTrainedModel, names: list[str], stacks: list[str], config: Lora) -> LoraConfig:
    from peft import LoraConfig

    mistaken = set(_mistaken(model, names))
    parameters = [*stacks, *(f"{name}.weight" for name in names if name in mistaken)]
    alpha = config.alpha_over_rank * config.rank
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=int(alpha) if alpha.is_integer() else cast(int, alpha),  # peft takes fractions, too
        lora_dropout=0.0,
        target_modules=[name for name in names if name not in mistaken],
        target_parameters=parameters or None,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
        init_lora_weights=False,
    )


def lora_layer(model: PeftModel, name: str) -> LoraLayer:
    """Return the adapted layer that replaces the base model's layer `name`, or that adapts its stack `name`."""
    base = model.get_base_model()
    if _names_layer(base, name):
        return cast("LoraLayer", base.get_submodule(name))  # peft put it there
    owner, _, leaf = name.rpartition(".")
    wrapper = cast("ParamWrapper", base.get_submodule(owner))
    while wrapper.parameter_name != leaf:  # peft nests the wrappers of one module's parameters
        wrapper = cast("ParamWrapper", wrapper.base_layer)
    return wrapper


def _names_layer(base: nn.Module, name: str) -> bool:
    try:
        base.get_submodule(name)
    except AttributeError:
        return False
    return True


def lora_factors(layer: LoraLayer, adapter: str) -> tuple[Tensor, Tensor]:
    """Return the weights A [r, in] and B [out, r] of one adapter of a layer; of a stack of E, A [E r, in] and B
    [out, r E]."""
    return stored_weight(layer.lora_A[adapter]), stored_weight(layer.lora_B[adapter])


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Inside the block LoRA layers compute what their base layers do."""
    # peft's own context also marks every adapter as frozen and then as trainable, behind the engine's back.
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "_disable_adapters")]
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


class WithoutAdapters(nn.Module):
    """The base model of a model with adapters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.get_output_embeddings = getattr(model, "get_output_embeddings", None)

    def forward(self, **inputs: Any) -> Any:
        """Return what the base model does."""
        with without_adapters(self.model):
            return self.model(**inputs)


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
