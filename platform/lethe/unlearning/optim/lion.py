"""Lion: the sign of the momentum (Chen et al. 2023, arXiv 2302.06675)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lethe.config.optimizer import Lion as LionConfig
from lethe.unlearning.optim.base import OPTIMIZERS
from lethe.unlearning.optim.pieces import pieces


@OPTIMIZERS.implements(LionConfig)
def lion(config: LionConfig, params: Iterable[Any]) -> Lion:
    """Build Lion over tensors or parameter groups."""
    return Lion(params, config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)


class Lion(Optimizer):
    """p *= 1 - lr wd; p -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g.

    The sign of 0 is 0. State per parameter: one tensor, `m`.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights. Parameters without a gradient are skipped. Returns the loss of `closure`, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(group, p, p.grad)
        return loss

    def _update(self, group: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        state, (b1, b2), lr = self.state[p], group["betas"], group["lr"]
        if not state:
            state["m"] = torch.zeros_like(p)
        for w, g, m, direction in pieces(p, gradient, state["m"]):
            torch.lerp(m, g, 1 - b1, out=direction).sign_()
            w.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
            m.lerp_(g, 1 - b2)
