"""Methods without a training loss: one module each, with the contract of `lethe.unlearning.methods.base.Method`."""

from lethe.unlearning.methods.base import METHODS, Method

__all__ = ["METHODS", "Method"]
