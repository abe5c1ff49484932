"""Front members, run again with fresh seeds before they are registered."""

from __future__ import annotations

from pydantic import Field

from lethe.config.base import Frozen


class Confirm(Frozen):
    """The best of many noisy trials looks better than it is; its runs with other seeds do not. Their means say which
    members stay on the front."""

    seeds: int = Field(3, ge=2, le=100, description="runs of each member, with the seeds after its own")
