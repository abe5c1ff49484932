"""Sharpness-aware minimisation (Foret et al. 2020, arXiv 2010.01412), around the step of any first-order optimizer.

    e = rho g / ||g||,    g = gradient at theta;    the optimizer steps at theta with the gradient at theta + e

ZeRO gives the gradient to the optimizer as flat shards when it calls `step`. So the way up is a step that keeps these
shards, and the way back is taken when `step` is called again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import Optimizer


class Ascent:
    """The way of one step up the slope and back. Between steps it holds nothing."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._kept: dict[Tensor, Tensor] = {}  # gradients, then where each tensor came from

    @contextmanager
    def keeping_gradients(self) -> Iterator[None]:
        """Inside, the optimizer's `step` keeps the gradients and moves nothing. ZeRO may call it once per group."""

        def keep(*_: Any, **__: Any) -> None:
            for group in self._optimizer.param_groups:
                self._kept |= {p: p.grad.detach().clone() for p in group["params"] if p.grad is not None}

        with patch.object(self._optimizer, "step", keep):
            yield

    @torch.no_grad()
    def climb(self, masters: Sequence[Tensor], factor: float) -> None:
        """Move every master by `factor` times its gradient."""
        for master in masters:
            if (gradient := self._kept.get(master)) is not None:
                start = master.detach().clone()
                master.add_(gradient, alpha=factor)
                self._kept[master] = start

    @contextmanager
    def coming_back(self) -> Iterator[None]:
        """Bring all masters back, to the bit, before the optimizer's first `step` inside, or at the end."""
        hook = self._optimizer.register_step_pre_hook(lambda *_: self._come_back())
        try:
            yield
        finally:
            hook.remove()
            self._come_back()

    @torch.no_grad()
    def _come_back(self) -> None:
        while self._kept:
            master, start = self._kept.popitem()
            master.copy_(start)
