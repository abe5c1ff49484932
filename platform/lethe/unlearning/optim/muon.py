"""Muon for the matrices of hidden layers (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982), AdamW for all other
weights, both PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, optim

from lethe.config.optimizer import Muon as MuonConfig
from lethe.unlearning.optim.base import OPTIMIZERS


@OPTIMIZERS.implements(MuonConfig)
def muon(config: MuonConfig, params: Iterable[Any]) -> Muon:
    """Build Muon over parameter groups, of which those with `hidden` are orthogonalised; tensors alone are not."""
    groups = [given if isinstance(given, dict) else {"params": [given]} for given in params]
    hidden, rest = ([p for g in groups if bool(g.get("hidden")) is kind for p in g["params"]] for kind in (True, False))
    return Muon(config, hidden, rest)


class Muon(optim.Optimizer):
    """m = mu m + (1 - mu) g; p *= 1 - lr wd; p -= lr .2 sqrt(max(rows, columns)) NS((1 - mu) g + mu m), NS the
    Newton-Schulz iteration, which brings all singular values near 1; without nesterov NS(m). The rest by AdamW.

    State: one tensor, `momentum_buffer`, of a hidden matrix; of other weights AdamW's.
    """

    def __init__(self, config: MuonConfig, hidden: list[Tensor], rest: list[Tensor]) -> None:
        shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self._parts: list[optim.Optimizer] = []
        if hidden:
            self._parts.append(
                optim.Muon(
                    hidden,
                    **shared,
                    momentum=config.momentum,
                    nesterov=config.nesterov,
                    ns_steps=config.newton_schulz,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if rest:
            self._parts.append(optim.AdamW(rest, **shared, betas=config.betas, eps=config.eps, fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        # The parts have these very groups and this very state: who changes a rate or restores a tensor, does it here.
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights. Parameters without a gradient are skipped. Returns the loss of `closure`, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
