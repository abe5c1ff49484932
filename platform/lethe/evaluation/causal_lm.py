"""A causal language model's parts, whether or not peft wraps it."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def base_model(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside of `model`: `model` itself unless peft wraps it."""
    # A cast, since for a type checker every attribute of a Module is a tensor or a Module.
    return cast(PreTrainedModel, model.get_base_model() if hasattr(model, "get_base_model") else model)  # type: ignore[operator]  # as above


def text_config(model: nn.Module) -> PreTrainedConfig:
    """Return the configuration of the model's text decoder: layers, heads, vocabulary, positions."""
    return base_model(model).config.get_text_config(decoder=True)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device
