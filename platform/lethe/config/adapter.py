"""Which weights are trained: all of them, or a low-rank adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lethe.config.base import Frozen


class FullParameters(Frozen):
    """Every weight is trained."""

    name: Literal["full"] = "full"


class Lora(Frozen):
    """Low-rank adapters on linear layers (Hu et al. 2021)."""

    name: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    alpha_over_rank: float = Field(2.0, gt=0, description="the adapter's scaling s; LoKU: alpha = 2 rank")
    targets: str = Field("all-linear", description="'all-linear' (all but the head) or comma-separated module names")


class Fila(Lora):
    """LoRA started from the directions that matter to the forget rows (LoKU, arXiv 2408.06621)."""

    name: Literal["fila"] = "fila"
    fisher_rows: int = Field(40, ge=1, description="forget rows, and as many retain rows, in the Fisher estimate")
    fisher_eps: float = Field(0.1, gt=0, description="added to the retain Fisher, relative to its mean")


AnyAdapter = Annotated[FullParameters | Lora | Fila, Field(discriminator="name")]
