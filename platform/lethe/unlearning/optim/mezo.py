"""MeZO: gradient descent by two forward passes (Malladi et al. 2023, arXiv 2305.17333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lethe.config.optimizer import Mezo as MezoConfig
from lethe.unlearning.optim.base import OPTIMIZERS
from lethe.unlearning.optim.hessian import sample_keys


@OPTIMIZERS.implements(MezoConfig)
def mezo(config: MezoConfig, params: Iterable[Any]) -> Mezo:
    """Build MeZO over tensors or parameter groups."""
    return Mezo(params, config.learning_rate, eps=config.eps, samples=config.samples, weight_decay=config.weight_decay)


class Mezo(Optimizer):
    """s = (L(p + eps z) - L(p - eps z)) / (2 eps); p *= 1 - lr wd; p -= lr mean(s z) over `samples` directions z.

    z is standard normal. It is never stored: it is drawn anew, one tensor at a time, from a generator whose seed is
    hashed from `key`, the number of the sample and the place of the tensor. No state, and no gradient is read.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, *, eps: float = 1e-3, samples: int = 1, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "samples": samples, "weight_decay": weight_decay})
        self.key = (0, 0)  # the run's seed, the number of the step

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> list[float] | None:  # type: ignore[override]
        """Take a step by the loss that `closure` returns, that of all ranks, and return s of every sample. Without a
        closure, as DeepSpeed calls it, nothing happens."""
        if closure is None:
            return None
        eps, samples = self.defaults["eps"], self.defaults["samples"]
        slopes = []
        for sample in range(samples):
            self._move(sample, eps)
            above = closure()
            self._move(sample, -2 * eps)
            slopes.append((above - closure()) / (2 * eps))
            self._move(sample, eps)
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
        for sample, slope in enumerate(slopes):
            self._move(sample, -slope / samples, by_rate=True)
        return slopes

    def _move(self, sample: int, distance: float, *, by_rate: bool = False) -> None:
        """Move all parameters by `distance`, or with `by_rate` that times the rate, along a sample's direction."""
        place = 0
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(self.direction(p, sample, place), alpha=distance * (group["lr"] if by_rate else 1))
                place += 1

    def direction(self, p: Tensor, sample: int, place: int) -> Tensor:
        """Return z of the parameter that is number `place` of all: equal on all ranks with one kind of device."""
        seed, step = self.key
        key = sample_keys(seed, step, torch.tensor(sample), torch.tensor(place))
        generator = torch.Generator(p.device).manual_seed(int(key))
        return torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
