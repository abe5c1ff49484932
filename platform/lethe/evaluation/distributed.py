"""Low-rank adapters added into copies of their weights for the time of an evaluation.

How ranks divide an evaluation, and the state in which they find and leave a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

COPY_BYTES = 4 * 2**30  # of weights; a larger model keeps its adapters apart


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[None]:
    """Inside the block LoRA layers cost what plain ones do; afterwards every tensor is the one it was, bit for bit.

    An adapter is two small products per layer and token: with two of them (FILA) a small model scores at half
    its speed. Only where that changes nothing but rounding: all float32, plain LoRA, whole unshared weights.
    """
    layers = _lora_layers(model)
    if not layers or not _foldable(model, layers):
        yield
        return
    weights = [layer.get_base_layer().weight for layer in layers]
    originals = [weight.data for weight in weights]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, weights, strict=True):
                weight.data = weight.data.clone()
                layer.merge()
        yield
    finally:
        for layer, weight, original in zip(layers, weights, originals, strict=True):
            weight.data = original
            layer.merged_adapters.clear()


def _lora_layers(model: nn.Module) -> list[nn.Module]:
    if not hasattr(model, "peft_config"):
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _foldable(model: nn.Module, layers: list[nn.Module]) -> bool:
    from peft.tuners.lora import Linear

    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    plain = all(type(x) is Linear and not (x.lora_variant or x.merged or x.disable_adapters) for x in layers)
    if not plain or any(any(x.lora_bias.values()) for x in layers):
        return False
    tensors = [p for layer in layers for p in layer.parameters()]
    if any(p.dtype != torch.float32 or hasattr(p, "ds_id") for p in tensors):  # ds_id: sharded by ZeRO-3
        return False
    weights = [layer.get_base_layer().weight for layer in layers]
    return all(owners[id(w)] == 1 for w in weights) and sum(w.nbytes for w in weights) <= COPY_BYTES


Gather = Callable[[list], list[list]]
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class RankShard:
    """This rank's part of the work. Where a forward pass is a collective (ZeRO-3), give every rank all of it."""

    rank: int = 0
    world: int = 1
    gather: Gather | None = None

    def map(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Found]]) -> list[Found]:
        """`work`'s answers to all items, in order, on every rank; each rank works on every `world`-th item."""
        local = list(work(items[self.rank :: self.world]))
        if self.world == 1:
            return local
        if self.gather is None:
            raise ValueError("several ranks need a gather function")
        return merged(local, self.world, self.gather)


def merged(local: Sequence[Any], world: int, gather: Gather) -> list[Any]:
    """All ranks' items in the order that `[rank::world]` took them from."""
    parts = gather(list(local))
    found: list[Any] = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        found[rank::world] = part
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and folded adapters inside the block; every module gets its own mode back, every weight its bits."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with merged_adapters(model):
            yield
    finally:
        for module, training in modes:
            module.training = training
