"""AdamW whose moments have 8 bits (Dettmers et al. 2022, arXiv 2110.02861), bitsandbytes'."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from lethe.config.optimizer import AdamW8bit
from lethe.errors import UserError
from lethe.models.packages import without_optimizer_package
from lethe.unlearning.optim.base import OPTIMIZERS


@OPTIMIZERS.implements(AdamW8bit)
def adamw8bit(config: AdamW8bit, params: Iterable[Any]) -> Optimizer:
    """Build AdamW with 8-bit moments over tensors or parameter groups. Raises UserError without bitsandbytes."""
    if problem := without_optimizer_package(config):
        raise UserError(problem)
    from bitsandbytes.optim import AdamW8bit as Bitsandbytes

    optimizer: Optimizer = Bitsandbytes(
        params,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    return optimizer
