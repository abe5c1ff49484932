"""Instruments of the timed points: the machine's matrix rate, bytes of live tensors, time in collectives."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Return FLOPs per second of this process's threads in square matrix products, the yardstick of utilisation.

    It is the median of `TRIES` products after a first that is not counted. `clock` is CPU time by default, which other
    processes hardly disturb; on a GPU wall-clock time is taken.
    """
    side = SIDE_ON_GPU if device == "cuda" else SIDE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    now = time.perf_counter if device == "cuda" else clock
    seconds = []
    for _ in range(TRIES + 1):
        wait()
        began = now()
        torch.mm(a, b)
        wait()
        seconds.append(now() - began)
    return 2.0 * side**3 / statistics.median(seconds[1:])


class TensorMemory(TorchDispatchMode):
    """A context that counts every new storage from the operation that makes it until nothing holds it.

    `live` and `peak` are bytes beyond the storages that existed before, read off every operation and not off the
    allocator; views cost nothing. Memory that one operation allocates and frees inside itself is not seen: on a CPU
    that is a few blocks of a kernel.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        for argument in tree_leaves((args, kwargs)):
            if isinstance(argument, torch.Tensor) and argument.device.type != "meta":
                self._add(argument.untyped_storage(), 0)  # it existed before
        result = func(*args, **kwargs)
        for output in tree_leaves(result):
            if isinstance(output, torch.Tensor) and output.device.type != "meta":
                storage = output.untyped_storage()
                self._add(storage, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self.live += size
        self._known[key] = weakref.ref(storage, lambda _: self._discard(key, size))

    def _discard(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.live -= size


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
        """Set both counts to 0."""
        self.seconds, self.bytes = 0.0, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the collectives of DeepSpeed's backend in this block; the backend exists once an engine was built."""
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
                self.bytes += _largest_tensor([*args, *kwargs.values()])

        return timed


def _largest_tensor(arguments: list[Any]) -> int:
    """Return the bytes of the largest tensor among a collective's arguments: the one that is spread or gathered."""
    return max((v.numel() * v.element_size() for v in arguments if hasattr(v, "element_size")), default=0)
