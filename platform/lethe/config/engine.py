"""How a run is executed: the DeepSpeed engine and its processes. All of it can change the last bits of a result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lethe.config.base import Frozen


class Engine(Frozen):
    """DeepSpeed ZeRO stage, precision and the number of workers that share one model.

    Equal runs are bit-identical on the CPU; on CUDA the fused attention kernels add gradients in no fixed order.
    """

    stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = Field(1, ge=1)
    threads: int = Field(1, ge=1, description="CPU threads per worker")
    device: Literal["cpu", "cuda"] = "cpu"
