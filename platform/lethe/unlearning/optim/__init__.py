"""Optimizers, one module each: they see flat shards of the weights, without names or shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from lethe.config.optimizer import AnyOptimizer
from lethe.unlearning.optim.base import OPTIMIZERS, CountsWins, RefreshesHessian

__all__ = ["OPTIMIZERS", "CountsWins", "RefreshesHessian", "make_optimizer"]


def make_optimizer(config: AnyOptimizer, params: Iterable[Any]) -> Optimizer:
    """Build the optimizer that `config` configures over tensors or parameter groups."""
    return OPTIMIZERS.of(config)(config, params)
