"""Unlearned models on disk, in files that stock transformers and peft load."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lethe.models.adapters import START, TRAINED
from lethe.models.loading import ADAPTER
from lethe.storage.paths import atomic_folder
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D


def save_model(
    model: PreTrainedModel | PeftModel,
    target: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    base_name: str | None = None,
) -> None:
    """Write the model to a new folder `target`, whole or not at all, with its tokenizer; an existing one is kept.

    Full-parameter models are saved as they are; adapters as one ordinary LoRA against the original base weights,
    called `base_name` in `adapter_config.json` (none by default: a path of this machine has no place there).
    Gather sharded parameters first.
    """
    with atomic_folder(target) as folder:
        if isinstance(model, PeftModel):
            _save_adapter(model, folder, base_name)
        else:
            model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The adapter as peft names it: `base_model.model.NAME.lora_A.weight` [r, in] and `lora_B` [out, r].

    PiSSA's and FILA's change is s (B A - B0 A0), so the two adapters become one of rank 2r: A over A0, B beside -B0.
    """
    tensors: dict[str, Tensor] = {}
    for name, layer in _layers(model).items():
        active = [adapter for adapter in (TRAINED, START) if adapter in layer.lora_A]
        a = torch.cat([layer.lora_A[adapter].weight.detach() for adapter in active])
        b = torch.cat([layer.lora_B[adapter].weight.detach() for adapter in active], 1)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.cpu().contiguous()
    return tensors


@torch.no_grad()
def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """A plain transformers model that computes the same, in copied weights: the live model is not touched."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    layers = _layers(model)
    state = _plain_state(base, layers)
    for name, layer in layers.items():
        weight = state[f"{name}.weight"]
        weight.copy_(weight.float() + _change(layer))
    with torch.random.fork_rng(devices=[]):
        copy = type(base).from_pretrained(None, config=deepcopy(base.config), state_dict=state, dtype=base.dtype)
    copy.generation_config = deepcopy(base.generation_config)
    return copy.to(base.device).eval()


def _plain_state(base: PreTrainedModel, layers: dict[str, LoraLayer]) -> dict[str, Tensor]:
    """Copies of the base weights under the names they had before peft."""
    adapters = tuple(f"{name}.lora_" for name in layers)
    state = {}
    for key, value in base.state_dict().items():
        name, marker, leaf = key.partition(".base_layer.")
        if not key.startswith(adapters):
            state[f"{name}.{leaf}" if marker and name in layers else key] = value.detach().clone()
    return state


def _layers(model: PreTrainedModel | PeftModel) -> dict[str, LoraLayer]:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}


def _change(layer: LoraLayer) -> Tensor:
    """S (B A - B0 A0) in fp32, in the shape that the base layer stores."""
    products = [
        layer.scaling[adapter] * (layer.lora_B[adapter].weight.float() @ layer.lora_A[adapter].weight.float())
        for adapter in (TRAINED, START)
        if adapter in layer.lora_A
    ]
    change = torch.stack(products).sum(0)
    return change.T if isinstance(layer.get_base_layer(), Conv1D) else change


def _save_adapter(model: PeftModel, folder: Path, base_name: str | None) -> None:
    save_file(adapter_tensors(model), folder / ADAPTER, metadata={"format": "pt"})
    live = model.peft_config[TRAINED]
    copies = 1 + (START in model.peft_config)  # alpha grows with the rank, so that alpha / rank stays s
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=live.r * copies,
        lora_alpha=live.lora_alpha * copies,
        lora_dropout=0.0,
        target_modules=sorted(live.target_modules),
        fan_in_fan_out=live.fan_in_fan_out,
        base_model_name_or_path=base_name,
        inference_mode=True,
    )
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True, default=_plain)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Sets as sorted lists: equal adapters give equal files."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
