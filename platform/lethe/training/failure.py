"""What an exception in a worker says about its run: a result, or only that this attempt came to nothing."""

from __future__ import annotations

import traceback
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from lethe.errors import BadInput
from lethe.records import Verdict


class Failure(NamedTuple):
    """`lost` and `interrupted` are tried again; any other verdict would come out the same."""

    verdict: Verdict
    reason: str


def judge(error: Exception, world: int) -> Failure:
    """Call it while `error` is handled. `world`: ranks of the group."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    if is_io(error):
        return Failure("interrupted", f"{type(error).__name__}: {line}")
    if isinstance(error, BadInput):
        return Failure("infeasible", line)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in line:
        return Failure("out_of_memory", line)
    # With peers, torch and gloo say that one vanished by a RuntimeError of no particular type.
    if world > 1 and isinstance(error, RuntimeError):
        return Failure("lost", f"{type(error).__name__}: {line}")
    return Failure("error", traceback.format_exc(limit=-3))


def is_io(error: BaseException) -> bool:
    """Whether a disk, a file or a connection failed; `lethe.storage` makes BadInput of it, safetensors its own error."""
    if isinstance(error, BadInput):
        return isinstance(error.__context__, OSError)
    return isinstance(error, OSError) or (isinstance(error, SafetensorError) and "os error" in str(error))
