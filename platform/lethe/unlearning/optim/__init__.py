"""Optimizers, one module each: they see flat shards of the weights, without names or shapes, except
those that only work without ZeRO."""

from lethe.unlearning.optim.base import OPTIMIZERS, CountsWins, RefreshesHessian, make_optimizer, trained_weights

__all__ = ["OPTIMIZERS", "CountsWins", "RefreshesHessian", "make_optimizer", "trained_weights"]
