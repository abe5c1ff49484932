"""How often a running trial writes down where it is, so that another attempt can go on from there."""

from __future__ import annotations

from pydantic import Field

from lethe.config.base import Frozen

FOLDER = "checkpoint"  # in a run's folder


class Checkpoint(Frozen):
    """No part of a run: its result is the same to the bit however often it was interrupted. One checkpoint holds what
    trains three times over in fp32 (weights and two moments); the newest is kept, none when the trial has ended."""

    at_reports: bool = Field(True, description="after every evaluation")
    every_steps: int | None = Field(None, ge=1, description="optimizer steps")
    every_seconds: float | None = Field(300.0, gt=0, description="seconds since the last one; none: never by time")
