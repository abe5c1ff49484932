"""Optimizers, one module each: they see flat shards of the weights, without names or shapes."""

from lethe.unlearning.optim.base import OPTIMIZERS, CountsWins, RefreshesHessian, make_optimizer

__all__ = ["OPTIMIZERS", "CountsWins", "RefreshesHessian", "make_optimizer"]
