"""A frozen base in NF4, half a byte a weight, through bitsandbytes (QLoRA: Dettmers et al. 2023, arXiv 2305.14314).

Linear layers except the head hold blocks of 64 weights, each with a scale that is itself rounded to 8 bits (double
quantisation); embedding, head, norms, and experts that are no linear layers keep the run's precision. A layer is
multiplied out in the run's precision at every pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lethe.config.run import Quantisation
from lethe.models.packages import check_quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def loading_options(quantisation: Quantisation | None, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return the options of `from_pretrained` that quantise the weights on `device` as they are read; none without
    quantisation. Raises UserError without bitsandbytes."""
    if quantisation is None:
        return {}
    check_quantised(quantisation)
    from transformers import BitsAndBytesConfig

    settings: Any = BitsAndBytesConfig  # transformers leaves it unannotated
    config = settings(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_layout(model: nn.Module) -> None:
    """Keep every quantised layer of `model` from the layout that bitsandbytes gives it on some CPUs at its first
    evaluation."""
    # That layout (AVX512-BF16) computes in bf16 in whatever precision the run is, and has no backward pass: training
    # after an evaluation would go on without the gradients that pass through the base.
    for module in model.modules():
        if is_quantised(module):
            cast(Any, module).support_avx512bf16_for_cpu = False


def is_quantised(module: nn.Module) -> bool:
    """Return True for a linear layer that holds NF4."""
    return _state(module) is not None


def quantisation_of(model: nn.Module) -> Quantisation | None:
    """Return the quantisation of a model's linear layers, None where they hold plain weights."""
    return "nf4" if any(map(is_quantised, model.modules())) else None


def numel(p: Tensor) -> int:
    """Return the number of weights in a parameter, of which a byte of a quantised one holds two."""
    state = getattr(p, "quant_state", None)
    return p.numel() if state is None else int(state.shape.numel())


def plain_weight(module: nn.Module) -> Tensor:
    """Return a copy [out, in] of the weights that a quantised layer multiplies with, in the run's precision."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(cast(Tensor, module.weight).data, _state(module))
    return weight


@contextmanager
def plain_layers(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside the block those of the layers `names` that are quantised are plain ones that compute the same."""
    layers = {name: layer for name in names if is_quantised(layer := model.get_submodule(name))}
    try:
        for name, layer in layers.items():
            model.set_submodule(name, _plain_layer(layer))
        yield
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)


def dequantised(model: PreTrainedModel) -> PreTrainedModel:
    """Replace every quantised layer of `model` in place by a plain one that computes the same, and return it."""
    for name, layer in [pair for pair in model.named_modules() if is_quantised(pair[1])]:
        model.set_submodule(name, _plain_layer(layer))
    for mark in ("hf_quantizer", "is_quantized", "is_loaded_in_4bit", "quantization_method"):
        vars(model).pop(mark, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _state(module: nn.Module) -> Any:
    """Return bitsandbytes' description of a layer's NF4 weights, None for another layer."""
    return getattr(getattr(module, "weight", None), "quant_state", None)


def _plain_layer(layer: nn.Module) -> nn.Linear:
    weight, bias = plain_weight(layer), cast("nn.Parameter | None", layer.bias)
    with torch.device("meta"):
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), cast(nn.Parameter, bias)
    return plain.train(layer.training)
