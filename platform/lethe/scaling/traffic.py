"""How long a step's collectives take, waiting for slower peers included."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

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
