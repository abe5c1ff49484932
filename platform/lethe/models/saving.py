"""Saving unlearned models in files that stock transformers and peft load."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from lethe.models.adapters import START, TRAINED, lora_factors
from lethe.models.loading import BASE_QUANTISATION, on_device
from lethe.models.model_files import ADAPTER
from lethe.models.quantised import quantisation_of
from lethe.storage.paths import atomic_folder


def save_model(
    model: PreTrainedModel | PeftModel,
    target: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    base_name: str | None = None,
) -> None:
    """Write the model to a new folder `target`, whole or not at all, with its tokenizer; an existing one is kept.

    Full-parameter models are saved as they are; adapters as one ordinary LoRA against the original base weights,
    called `base_name` in `adapter_config.json` (none by default: a path of this machine has no place there). The
    metadata of the adapter's tensors name the quantisation of the base that it was trained on.
    Gather sharded parameters first.
    """
    with atomic_folder(target) as folder:
        write_model(model, folder, tokenizer, base_name=base_name)


def write_model(
    model: PreTrainedModel | PeftModel,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    base_name: str | None = None,
) -> None:
    """Write into a folder that exists what `save_model` writes."""
    if isinstance(model, PeftModel):
        _save_adapter(model, folder, base_name)
    else:
        model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """Return the adapter under peft's names: `base_model.model.NAME.lora_A.weight` [r, in] and `lora_B` [out, r].

    Several stacks of one module have nested wrappers, NAME.base_layer being the inner one, as in peft's own files.
    PiSSA's and FILA's change is s (B A - B0 A0), so the two adapters become one of rank 2r: A over A0, B beside -B0.
    """
    tensors: dict[str, Tensor] = {}
    for name, layer in _layers(model).items():
        factors = [lora_factors(layer, adapter) for adapter in (TRAINED, START) if adapter in layer.lora_A]
        a = torch.cat([a.detach() for a, _ in factors])
        b = torch.cat([b.detach() for _, b in factors], 1)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.cpu().contiguous()
    return tensors


@torch.no_grad()
def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return a plain transformers model that computes the same, in copied weights; `model` is left as it is."""
    base = _base(model)
    layers = _layers(model)
    state = _plain_state(base, layers)
    for name, layer in layers.items():
        weight = state[_weight_name(name, layer)]
        weight.copy_(weight.float() + _change(layer))  # rounded once, where the weights are narrower than fp32
    with torch.random.fork_rng(devices=[]):
        copy = type(base).from_pretrained(None, config=deepcopy(base.config), state_dict=state, dtype=base.dtype)
    copy.generation_config = deepcopy(base.generation_config)
    on_device(copy, base.device).eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    return copy


def _base(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    # peft types the base as any module; ours is a model of transformers.
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def _plain_state(base: PreTrainedModel, layers: dict[str, LoraLayer]) -> dict[str, Tensor]:
    """Return copies of the base weights under the names they had before peft."""
    adapters = tuple(f"{name}.lora_" for name in layers)
    state = {}
    for key, value in base.state_dict().items():
        if not key.startswith(adapters):
            plain, marker, leaf = key.rpartition(".base_layer.")
            adapted = bool(marker) and plain in layers
            state[f"{_without_wrappers(plain)}.{leaf}" if adapted else key] = value.detach().clone()
    return state


def _weight_name(name: str, layer: LoraLayer) -> str:
    """Return the plain name of the weight that the layer `name` adapts."""
    return f"{_without_wrappers(name)}.{layer.parameter_name if isinstance(layer, ParamWrapper) else 'weight'}"


def _without_wrappers(name: str) -> str:
    return name.replace(".base_layer", "")


def _layers(model: PreTrainedModel | PeftModel) -> dict[str, LoraLayer]:
    return {name: module for name, module in _base(model).named_modules() if isinstance(module, LoraLayer)}


def _change(layer: LoraLayer) -> Tensor:
    """Return s (B A - B0 A0) in fp32, in the shape that the base layer stores."""
    products = []
    for adapter in (TRAINED, START):
        if adapter in layer.lora_A:
            a, b = lora_factors(layer, adapter)
            if isinstance(layer, ParamWrapper) and layer.num_experts > 1:
                delta: Tensor = layer.get_delta_weight(adapter)  # type: ignore[no-untyped-call]  # peft leaves it unannotated
                products.append(delta.float())
            else:
                products.append(layer.scaling[adapter] * (b.float() @ a.float()))
    change = torch.stack(products).sum(0)
    return change.T if isinstance(layer.get_base_layer(), Conv1D) else change


def _save_adapter(model: PeftModel, folder: Path, base_name: str | None) -> None:
    quantisation = quantisation_of(model)
    base = {BASE_QUANTISATION: quantisation} if quantisation else {}
    save_file(adapter_tensors(model), folder / ADAPTER, metadata={"format": "pt", **base})
    live = cast(LoraConfig, model.peft_config[TRAINED])  # peft types it as any method's configuration
    copies = 1 + (START in model.peft_config)  # alpha grows with the rank, so that alpha / rank stays s
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=live.r * copies,
        lora_alpha=live.lora_alpha * copies,
        lora_dropout=0.0,
        target_modules=sorted(live.target_modules or ()),
        target_parameters=sorted(live.target_parameters or ()) or None,
        fan_in_fan_out=live.fan_in_fan_out,
        base_model_name_or_path=base_name,
        inference_mode=True,
    )
    fields = config.to_dict()  # type: ignore[no-untyped-call]  # peft leaves it unannotated
    text = json.dumps(fields, indent=2, sort_keys=True, default=_plain)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a set as a sorted list for JSON, so that equal adapters give equal files. Raises TypeError otherwise."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
