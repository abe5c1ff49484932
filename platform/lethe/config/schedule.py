"""How long a run trains and in what batches."""

from __future__ import annotations

from pydantic import Field

from lethe.config.base import Frozen


class Schedule(Frozen):
    """An epoch is one pass over the forget rows, each paired with one random retain row."""

    epochs: int = Field(5, ge=1)
    max_steps: int | None = Field(None, ge=1, description="end after so many optimizer steps")
    batch_size: int = Field(20, ge=1, description="forget rows in one optimizer step, over all workers")
    accumulation: int = Field(1, ge=1, description="micro-batches per worker in one optimizer step")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps with a rising learning rate")
    decay: bool = Field(True, description="linear decay to zero; false keeps the rate")
    clip_norm: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")
