"""The language model inside of a checkpoint that reads images or sound as well."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def language_model(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """Return the name and the module of the text decoder inside `model`, the head apart; of a model for text alone the
    empty name and `model` itself."""
    config = model.config
    if config.get_text_config(decoder=True) is config:
        return "", model
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    name = next(name for name, module in model.named_modules() if module is decoder)
    return name, decoder
