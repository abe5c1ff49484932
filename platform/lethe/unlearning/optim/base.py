"""The contract of an optimizer: a function of its configuration and the parameters that returns a torch optimizer.

It is decorated with `OPTIMIZERS.implements(CONFIGURATION)` in a module of this package. ZeRO gives it flat shards, so
it may use neither names nor shapes, unless its configuration has `stages` (0,): there it sees whole weights. A
checkpoint saves the tensors of its state and each group's number `refreshes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.config.component import Implementations
from lethe.config.optimizer import AnyOptimizer
from lethe.models.forward import output_embeddings


@runtime_checkable
class RefreshesHessian(Protocol):
    """An optimizer whose configuration has a `hessian_refresh`."""

    def refresh(self, scale: float) -> AbstractContextManager[None]:
        """Return a context in which `step()` takes the gradient of the mean loss over `scale` sampled labels, over all
        ranks, and updates the Hessian with it, leaving weights and momentum alone."""


@runtime_checkable
class CountsWins(Protocol):
    """An optimizer that clips each coordinate's step: its runs report `win_rate`."""

    def win_counts(self) -> Tensor:
        """Return float64 [2] since the last call, of this rank's shards: coordinates that moved, and how many of these
        were not clipped."""


OPTIMIZERS: Implementations[Callable[[Any, Iterable[Any]], Optimizer]] = Implementations("lethe.unlearning.optim")


def trained_weights(config: AnyOptimizer, model: nn.Module) -> list[Any]:
    """Return the weights of `model`, which may be wrapped, that train. For an optimizer with `newton_schulz` they are
    two parameter groups: with `hidden` the matrices of all linear layers but the head, LoRA's factors among them,
    without it all others."""
    weights = [p for p in model.parameters() if p.requires_grad]
    if not config.newton_schulz:
        return weights
    base = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), model)
    head = output_embeddings(base)
    hidden = {m.weight for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    return [{"params": [p for p in weights if (p in hidden) is kind], "hidden": kind} for kind in (True, False)]


def make_optimizer(config: AnyOptimizer, params: Iterable[Any]) -> Optimizer:
    """Build the optimizer that `config` configures over tensors or parameter groups."""
    return OPTIMIZERS.of(config)(config, params)
