"""Stochastic gradient descent with momentum, PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import optim

from lethe.config.optimizer import Sgd
from lethe.unlearning.optim.base import OPTIMIZERS


@OPTIMIZERS.implements(Sgd)
def sgd(config: Sgd, params: Iterable[Any]) -> optim.SGD:
    """Build SGD over tensors or parameter groups."""
    return optim.SGD(
        params,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,  # without momentum it is the same
        weight_decay=config.weight_decay,
        fused=True,
    )
