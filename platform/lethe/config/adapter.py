"""Adapters: every weight is trained, or a low-rank adapter (docs/METHODS.md section 3)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lethe.config.base import Frozen, only_where


class FullParameters(Frozen):
    """Every weight is trained."""

    name: Literal["full"] = "full"


class Lora(Frozen):
    """Low-rank adapters on linear layers (Hu et al. 2021)."""

    name: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, description="r: columns of the adapter's matrices")
    alpha_over_rank: float = Field(2.0, gt=0, description="the adapter's scaling s; LoKU: alpha = 2 rank")
    targets: str = Field("all-linear", description="'all-linear' (all but the head) or comma-separated module names")


class Pissa(Lora):
    """LoRA started from each layer's principal directions (Meng et al. 2024, arXiv 2404.02948)."""

    name: Literal["pissa"] = "pissa"  # type: ignore[assignment]  # another name for a special case
    svd: Literal["exact", "oversampled"] = Field(
        "exact", description="oversampled: randomized, for layers whose exact decomposition takes minutes"
    )


class Fila(Pissa):
    """LoRA started from the directions that matter to the forget rows and not to the retain rows (LoKU: Cha et al.
    2024, arXiv 2408.06621).

    LoKU's released code has `fisher: batch`, `fisher_eps: 1e-5` and `fisher_eps_relative: false`. It further draws the
    retain rows at random, takes 1 / (w + 1e-5) for 1 / w, and sketches exactly r directions; no option does that.
    """

    name: Literal["fila"] = "fila"  # type: ignore[assignment]  # another name for a special case
    fisher: Literal["example", "batch"] = Field("example", description="square each row's gradient, or each batch's")
    fisher_batch_size: int = Field(
        16, ge=1, description="assumption: the batch of TOFU's own code", json_schema_extra=only_where(fisher="batch")
    )
    fisher_rows: int | None = Field(
        40, ge=1, description="forget rows in the Fisher estimate, evenly spread, and as many retain rows; all if fewer"
    )
    fisher_eps: float = Field(0.1, gt=0, description="added to the retain Fisher")
    fisher_eps_relative: bool = Field(True, description="fisher_eps is a share of the layer's mean retain Fisher")


class Vila(Fila):
    """FILA whose Fisher information is that of a random adapter instead of every weight, and a variance (VILA: Kim et
    al. 2025, arXiv 2508.21300): no gradient of a weight is ever computed.

    VILA's released code has `fisher: batch`, `fisher_batch_size: 4`, all rows, `fisher_eps: 1e-5` and
    `fisher_eps_relative: false`. It further passes ten times over the rows, draws the retain rows at random, divides
    both products of Fisher informations by the number of tokens once more, and multiplies the random adapter by
    alpha / r.
    """

    name: Literal["vila"] = "vila"  # type: ignore[assignment]  # another name for a special case
    fisher_rank: int = Field(8, ge=1, description="of the random adapter, whatever the rank that trains")
    fisher_std: float = Field(0.05, gt=0, description="standard deviation of the random adapter's entries")

    @model_validator(mode="after")
    def _varies(self) -> Self:
        """Refuse a Fisher of a single gradient, which has no variance."""
        least = self.fisher_batch_size + 1 if self.fisher == "batch" else 2
        if self.fisher_rows is not None and self.fisher_rows < least:
            raise ValueError(f"fisher_rows: the variance of one gradient is zero: take at least {least}")
        return self


AnyAdapter = Annotated[FullParameters | Lora | Pissa | Fila | Vila, Field(discriminator="name")]
