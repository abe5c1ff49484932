"""How many bytes live tensors take, and the most that they took: read off every operation, allocator apart."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """A context in which every new storage is counted from the operation that makes it until nothing holds it.

    `live` and `peak` are bytes beyond what existed before; views cost nothing. What one operation allocates and frees
    inside itself is not seen: on a CPU such room is a few blocks of a kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors that exist already."""
        for tensor in tensors:
            self._know(tensor.untyped_storage(), 0)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        for given in tree_leaves((args, kwargs)):
            if isinstance(given, torch.Tensor) and given.device.type != "meta":
                self._know(given.untyped_storage(), 0)  # it was there before
        result = func(*args, **kwargs)
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor) and made.device.type != "meta":
                storage = made.untyped_storage()
                self._know(storage, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _know(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self.live += size
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.live -= size


def unique_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind these tensors, each once, meta tensors left out."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t.device.type != "meta"}
    return sum(storages.values())
