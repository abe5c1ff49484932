"""What this machine's matrix units give: the yardstick of a step's utilisation.

How many bytes live tensors take, and the most that they took: read off every operation, allocator apart.

How long a step's collectives take, waiting for slower peers included.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIDE, SIDE_ON_GPU = 768, 8192
TRIES = 7

Clock = Callable[[], float]


def matrix_rate(device: str, precision: str, clock: Clock = time.process_time) -> float:
    """FLOPs per second of this process's threads in square matrix products: the median of several, of which the first
    is not counted. `clock` is CPU time by default, which others on the machine hardly disturb; a GPU has wall time."""
    side = SIDE_ON_GPU if device == "cuda" else SIDE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    tell = time.perf_counter if device == "cuda" else clock
    seconds = []
    for _ in range(TRIES + 1):
        wait()
        began = tell()
        torch.mm(a, b)
        wait()
        seconds.append(tell() - began)
    return 2.0 * side**3 / statistics.median(seconds[1:])


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


OPERATIONS = (
    "all_reduce", "all_reduce_coalesced", "all_gather", "all_gather_into_tensor", "all_gather_coalesced",
    "reduce", "reduce_scatter", "reduce_scatter_tensor", "broadcast", "barrier",
)  # fmt: skip


class Traffic:
    """Seconds in DeepSpeed's collectives and the bytes that went into them, since the last `reset`.

    A collective that DeepSpeed starts and awaits later (stage 3) is counted for its start only: a lower bound.
    """

    def __init__(self) -> None:
        self.seconds, self.bytes = 0.0, 0
        self._inside = False

    def reset(self) -> None:
        """Begin anew."""
        self.seconds, self.bytes = 0.0, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count what DeepSpeed's backend does in this block; it exists once an engine has been built."""
        from deepspeed.comm import comm

        with ExitStack() as stack:
            for name in OPERATIONS if comm.cdb is not None else ():
                if operation := getattr(comm.cdb, name, None):
                    stack.enter_context(patch.object(comm.cdb, name, self._timed(operation)))
            yield

    def _timed(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(operation)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # one collective may be made of others
                return operation(*args, **kwargs)
            self._inside, began = True, time.perf_counter()
            try:
                return operation(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds += time.perf_counter() - began
                self.bytes += _size([*args, *kwargs.values()])

        return timed


def _size(values: list[Any]) -> int:
    """Bytes of the largest tensor among the arguments: the whole that is spread or gathered."""
    return max((v.numel() * v.element_size() for v in values if hasattr(v, "element_size")), default=0)
