"""A key-value cache for greedy decoding of many rows at once, in the memory layout that attention reads fastest."""

from __future__ import annotations

import inspect
from math import prod

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from lethe.evaluation.causal_lm import base_model, device_of

STEP = 32  # slots added at a time; attention reads the unfilled ones too, masked


class TensorPool:
    """Memory for cache tensors. Fresh pages cost more than filling them, so returned tensors are used first."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, shape: tuple[int, ...], like: Tensor, final: int) -> Tensor:
        """Return an uninitialised flat tensor of at least `prod(shape)` elements, with dtype and device of `like`; a
        new one has `final` elements if that is more."""
        for place, flat in enumerate(self._free):
            if flat.numel() >= prod(shape) and (flat.dtype, flat.device) == (like.dtype, like.device):
                return self._free.pop(place)
        return like.new_empty(max(final, prod(shape)))

    def give(self, flat: Tensor) -> None:
        """Return a tensor that `take` gave."""
        self._free.append(flat)


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__ has no annotation
    """Keys and values [rows, heads, capacity, d] of one layer, each one contiguous tensor.

    `DynamicLayer` copies everything at every token; a tensor of the final size, read up to the current length, has
    gaps, and batched products over it run at a third of the memory bandwidth (measured: AMD Zen 4, one core). So the
    capacity grows by `STEP` slots. Slots from `length` on hold zeros, and the caller masks them.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, limit: int, pool: TensorPool) -> None:
        """`limit`: the number of tokens in the end."""
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.length = 0
        self._limit = capacity(limit)
        self._pool = pool
        self._flat: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append keys and values [rows, heads, new, d] of new tokens; return all slots, unfilled ones included."""
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        new = slice(self.length, self.length + key_states.shape[-2])
        if new.stop > self.keys.shape[-2]:
            self._move(capacity(new.stop), None)
        self.keys[:, :, new], self.values[:, :, new] = key_states, value_states
        self.length = new.stop
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep only the rows `beam_idx`, in that order."""
        self._move(self.keys.shape[-2], beam_idx)

    def get_seq_length(self) -> int:
        """Return the number of tokens."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of slots that attention sees after `query_length` more tokens, and the first's position."""
        return capacity(self.length + query_length), 0

    def _move(self, slots: int, rows: Tensor | None) -> None:
        """Copy keys and values into tensors with `slots` slots, and of these `rows` only, if given."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            shape = (old.shape[0] if rows is None else len(rows), old.shape[1], slots, old.shape[3])
            flat = self._pool.take(shape, old, prod(shape) // slots * self._limit)
            new = flat[: prod(shape)].view(shape)
            if rows is None:
                new[:, :, : self.length] = old[:, :, : self.length]
                new[:, :, self.length :] = 0
            else:
                torch.index_select(old, 0, rows, out=new)
            if name in self._flat:
                self._pool.give(self._flat[name])
            self._flat[name] = flat
            setattr(self, name, new)

    def release(self) -> None:
        """Return the layer's memory to the pool; the layer cannot be used afterwards."""
        for flat in self._flat.values():
            self._pool.give(flat)
        self._flat.clear()


def capacity(tokens: int) -> int:
    """Return the number of slots that hold `tokens` tokens: the next multiple of `STEP`."""
    return -(-tokens // STEP) * STEP


def builds_own_mask(config: PreTrainedConfig) -> bool:
    """Return whether the model's attention numbers its keys itself, besides the mask that it is given: unfilled slots
    would move its window or its ALiBi biases."""
    return config.model_type in ("gpt_neo", "bloom", "mpt") or bool(getattr(config, "alibi", False))


def remembers_by_keys(model: nn.Module) -> bool:
    """Return whether keys and values are all that the model remembers of the tokens before: no layer has a recurrent
    or convolutional state, which padding and other sequences in a row would enter."""
    base = base_model(model)
    layers = DynamicCache(config=base.config).layers
    kinds = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    return "past_key_values" in inspect.signature(base.forward).parameters and all(type(x) in kinds for x in layers)


@torch.no_grad()
def cache_bytes(model: nn.Module, tokens: int, *, windows: bool = True) -> int:
    """Return the bytes of the keys and values of one row of `tokens` tokens in all layers, measured with one token: a
    layer with a window keeps no more than that, unless `windows` is false. The model `remembers_by_keys`."""
    cache = DynamicCache(config=base_model(model).config)
    model(
        input_ids=torch.zeros((1, 1), dtype=torch.long, device=device_of(model)), past_key_values=cache, use_cache=True
    )
    total = 0
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            window = layer.sliding_window if windows and isinstance(layer, DynamicSlidingWindowLayer) else tokens
            total += min(tokens, window) * (layer.keys.nbytes + layer.values.nbytes)
    return total


def growing_cache(config: PreTrainedConfig, limit: int, pool: TensorPool) -> DynamicCache:
    """Return the model's own kind of cache for `limit` tokens in the end, with a `GrowingLayer` for every layer that
    attends to everything."""
    cache = DynamicCache(config=config)
    if builds_own_mask(config):
        return cache
    cache.layers = [GrowingLayer(limit, pool) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def release(cache: DynamicCache) -> None:
    """Return the memory of the cache's growing layers to their pool; the cache cannot be used afterwards."""
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer):
            layer.release()
