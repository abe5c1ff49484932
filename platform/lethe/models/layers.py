"""A decoder without its last layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from lethe.errors import UserError
from lethe.models.language import decoder_layers

LENS = "audits.logit_lens"


def inner_layers(model: PreTrainedModel) -> range:
    """Return the numbers of the layers before the last, from 1 on. Raises UserError where there are none, and for a
    model without a list of its layers."""
    _, layers = decoder_layers(model, LENS)
    if len(layers) < 2:
        raise UserError(f"{LENS}: {type(model).__name__} has one layer, and none before it: leave it out")
    return range(1, len(layers))


@contextmanager
def first_layers(model: PreTrainedModel, count: int) -> Iterator[None]:
    """Inside the block the model has its first `count` layers alone: their states go to the last norm and the head.
    Forward passes must not use a cache, which has a place for every layer."""
    path, layers = decoder_layers(model, LENS)
    owner, _, name = path.rpartition(".")
    parent = model.get_submodule(owner)
    setattr(parent, name, layers[:count])
    try:
        yield
    finally:
        setattr(parent, name, layers)
