"""The layers of a decoder: finding them, and leaving out the last ones for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from lethe.errors import UserError
from lethe.models.language import language_model


def layer_list(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """Return the module that has the decoder's layers and the name of its `ModuleList` of them. Raises UserError where
    there is no such list."""
    _, decoder = language_model(model)
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = [
        (sum(1 for _ in child.modules()), module, name)
        for module in decoder.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of its {count} layers")
    # Others of that length hold a small part of each layer.
    _, owner, name = max(lists, key=lambda found: found[0])
    return owner, name


def inner_layers(model: PreTrainedModel) -> range:
    """Return the numbers of the layers before the last, from 1 on. Raises UserError, as `layer_list` does, where there
    are none."""
    owner, name = layer_list(model)
    count = len(list(owner.get_submodule(name).children()))
    if count < 2:
        raise UserError(f"{type(model).__name__} has one layer, and none before it")
    return range(1, count)


@contextmanager
def first_layers(model: PreTrainedModel, count: int) -> Iterator[None]:
    """Inside the block the model has its first `count` layers alone: their states go to the last norm and the head.
    Forward passes must not use a cache, which has a place for every layer."""
    owner, name = layer_list(model)
    layers = owner.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    setattr(owner, name, layers[:count])
    try:
        yield
    finally:
        setattr(owner, name, layers)
