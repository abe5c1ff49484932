"""The language model inside of a checkpoint that reads images or sound as well."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from lethe.errors import UserError


def language_model(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """Return the name and the module of the text decoder inside `model`, the head apart; of a model for text alone the
    empty name and `model` itself."""
    config = model.config
    if config.get_text_config(decoder=True) is config:
        return "", model
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    name = next(name for name, module in model.named_modules() if module is decoder)
    return name, decoder


def decoder_layers(model: nn.Module, key: str = "objective.layer") -> tuple[str, nn.ModuleList]:
    """Return the name, in the transformers model inside of `model`, and the list of its text decoder's layers, whatever
    its architecture calls them. `model` may be wrapped. Raises UserError, which names the setting `key`, without such a
    list."""
    base = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    prefix, decoder = language_model(base)
    depth = getattr(base.config.get_text_config(decoder=True), "num_hidden_layers", None)
    lists = [(name, m) for name, m in decoder.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise UserError(f"{key}: {type(base).__name__} has no list of decoder layers to read states from")
    # Others of that length hold one small part of each layer, such as its norm.
    name, layers = max(lists, key=lambda found: sum(1 for _ in found[1].modules()))
    return f"{prefix}.{name}".removeprefix("."), layers


def decoder_layer(model: nn.Module, layer: int) -> nn.Module:
    """Return decoder layer `layer`, counted from 0. Raises UserError where the model has no such layer."""
    _, layers = decoder_layers(model)
    if layer >= len(layers):
        base = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
        raise UserError(
            f"objective.layer: {layer}: {type(base).__name__} has {len(layers)} layers, 0 to {len(layers) - 1}"
        )
    return layers[layer]
