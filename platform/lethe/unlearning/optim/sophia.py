"""Sophia: momentum over a clipped diagonal Hessian (Liu et al. 2023, arXiv 2305.14342), and the form SOUL released."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lethe.config.optimizer import Sophia as SophiaConfig
from lethe.unlearning.optim.base import OPTIMIZERS
from lethe.unlearning.optim.pieces import pieces

# What the official optimizer's `step(bs=5120)` calls the tokens in a batch, and SOUL's release (arXiv 2404.18239)
# leaves at that default: there a constant factor of h, whatever the batch.
RELEASED_TOKENS = 5120


@OPTIMIZERS.implements(SophiaConfig)
def sophia(config: SophiaConfig, params: Iterable[Any]) -> Sophia:
    """Build Sophia over tensors or parameter groups."""
    sampled = config.hessian == "gnb"
    return Sophia(
        params,
        lr=config.learning_rate,
        betas=config.betas,
        clip_threshold=config.clip_threshold,
        eps=config.eps,
        weight_decay=config.weight_decay,
        bias_correction=sampled and config.hessian_bias_correction,
        squared_gradient=not sampled,
    )


class Sophia(Optimizer):
    """p *= 1 - lr wd; m = b1 m + (1 - b1) g; p -= lr clip(m / max(rho h, eps), -1, 1).

    `clip_threshold` is rho. The diagonal Hessian h changes only inside `with optimizer.refresh(scale):`, where
    `step()` does h = b2 h + (1 - b2) scale g^2 from the gradient g of the sampled loss and leaves parameters and
    momentum alone; the caller decides how often. With `bias_correction` h is divided by 1 - b2^refreshes in use.

    With `squared_gradient`, as SOUL released it, there are no refreshes: every update first does
    h = b2 h + (1 - b2) 5120 g^2 from its own gradient, and takes that gradient into the momentum twice, so that b1
    acts as b1^2.

    State per parameter: two tensors, `m` and `h`. State per group: the counter `refreshes`, which ticks once per
    `refresh` context, however often `step()` is called in it (ZeRO calls it once per group or sub-group).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        betas: tuple[float, float] = (0.965, 0.99),
        clip_threshold: float = 0.04,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        bias_correction: bool = False,
        squared_gradient: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "clip_threshold": clip_threshold,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "squared_gradient": squared_gradient,
            "refreshes": 0,
        }
        super().__init__(params, defaults)
        self._scale: float | None = None
        self._ticked: set[int] = set()
        self._wins: Tensor | None = None

    @contextmanager
    def refresh(self, scale: float) -> Iterator[None]:
        """Make `step()` refresh the Hessian inside the context. `scale`: n_s, the number of sampled labels over all
        ranks behind the mean loss."""
        self._scale, self._ticked = float(scale), set()
        try:
            yield
        finally:
            self._scale = None

    def win_counts(self) -> Tensor:
        """Return float64 [2] since the last call: coordinates with m != 0, and how many of those were not clipped.

        These are counts of this rank's shards, on the device: sum over ranks, then divide.
        """
        wins, self._wins = self._wins, None
        return torch.zeros(2, dtype=torch.float64) if wins is None else wins

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights, or inside `refresh` the Hessian alone. Parameters without a gradient are skipped. Returns
        the loss of `closure`, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            if self._scale is not None:
                self._refresh(group, params, self._scale)
            else:
                for p in params:
                    self._update(group, p)
        return loss

    def _state(self, p: Tensor) -> tuple[Tensor, Tensor]:
        state = self.state[p]
        if not state:
            state["m"] = torch.zeros_like(p)
            state["h"] = torch.zeros_like(p)
        return state["m"], state["h"]

    def _refresh(self, group: dict[str, Any], params: list[Tensor], scale: float) -> None:
        for p in params:
            _estimate(self._state(p)[1], _gradient(p), group["betas"][1], scale)
        if id(group) not in self._ticked:
            self._ticked.add(id(group))
            group["refreshes"] += 1

    def _update(self, group: dict[str, Any], p: Tensor) -> None:
        b1, b2 = group["betas"]
        released = group["squared_gradient"]
        lr, decay = group["lr"], 1 - group["lr"] * group["weight_decay"]
        unbias = 1 - b2 ** group["refreshes"] if group["bias_correction"] and group["refreshes"] else 1.0
        threshold = group["clip_threshold"] / unbias
        counts = []
        for w, g, m, h, ratio in pieces(p, _gradient(p), *self._state(p)):
            if released:
                _estimate(h, g, b2, RELEASED_TOKENS)
            m.lerp_(g, 1 - b1 * b1 if released else 1 - b1)
            torch.mul(h, threshold, out=ratio).clamp_min_(group["eps"])
            torch.div(m, ratio, out=ratio).clamp_(-1, 1)
            w.mul_(decay).add_(ratio, alpha=-lr)
            # |ratio| is 0 where m is 0 and 1 where clipped, so its ceiling and floor count both.
            counts += [ratio.abs_().ceil().sum(), ratio.floor_().sum()]
        moved, clipped = torch.stack(counts).view(-1, 2).sum(0, dtype=torch.float64)
        wins = torch.stack([moved, moved - clipped])
        self._wins = wins if self._wins is None else self._wins + wins


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None  # `step` skips parameters without
    return p.grad


def _estimate(h: Tensor, g: Tensor, b2: float, scale: float) -> None:
    """Update in place: h = b2 h + (1 - b2) scale g^2."""
    h.mul_(b2).addcmul_(g, g, value=(1 - b2) * scale)
