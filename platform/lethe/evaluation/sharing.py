"""How ranks divide an evaluation, and the state in which they find and leave a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from lethe.evaluation.folding import folded_adapters

Gather = Callable[[list], list[list]]
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Share:
    """This rank's part of the work. Where a forward pass is a collective (ZeRO-3), give every rank all of it."""

    rank: int = 0
    world: int = 1
    gather: Gather | None = None

    def of(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Found]]) -> list[Found]:
        """`work`'s answers to all items, in order, on every rank; each rank works on every `world`-th item."""
        local = list(work(items[self.rank :: self.world]))
        if self.world == 1:
            return local
        if self.gather is None:
            raise ValueError("several ranks need a gather function")
        return merged(local, self.world, self.gather)


def merged(local: Sequence[Any], world: int, gather: Gather) -> list[Any]:
    """All ranks' items in the order that `[rank::world]` took them from."""
    shares = gather(list(local))
    found: list[Any] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        found[rank::world] = share
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and folded adapters inside the block; every module gets its own mode back, every weight its bits."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with folded_adapters(model):
            yield
    finally:
        for module, training in modes:
            module.training = training
