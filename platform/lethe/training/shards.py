"""What an engine trains, as this rank holds it: flat fp32 masters and the optimizer's tensors, out and in again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lethe.training.engine import Engine


def shards(engine: Engine) -> dict[str, Tensor]:
    """This rank's tensors by name, `INDEX.master` and `INDEX.NAME of the optimizer's state`: live ones, no copies."""
    found: dict[str, Tensor] = {}
    for index, master in enumerate(engine.masters()):
        found[f"{index}.master"] = master.detach()
        found |= {f"{index}.{name}": value for name, value in engine.optimizer.state.get(master, {}).items()}
    return found


def refreshes(engine: Engine) -> list[int]:
    """Sophia's only state that is no tensor, per parameter group; 0 for AdamW, which counts its steps in one."""
    return [group.get("refreshes", 0) for group in engine.optimizer.param_groups]


@torch.no_grad()
def restore(engine: Engine, tensors: Mapping[str, Tensor], refreshes: Sequence[int]) -> None:
    """Put the state of an equal engine into one that has not taken a step; every rank calls this."""
    for index, master in enumerate(engine.masters()):
        mine = {name.removeprefix(f"{index}."): t for name, t in tensors.items() if name.startswith(f"{index}.")}
        master.copy_(mine.pop("master"))
        for name, tensor in mine.items():
            engine.optimizer.state[master][name] = tensor.to(master.device, copy=True)
    for group, count in zip(engine.optimizer.param_groups, refreshes, strict=True):
        if "refreshes" in group:
            group["refreshes"] = count
    engine.publish()
