"""What a worker group does for the doctor: a sum over its ranks, and three steps of every DeepSpeed stage."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from lethe.config.engine import Engine as EngineConfig
from lethe.config.optimizer import Sophia
from lethe.config.run import Recipe
from lethe.pool.worker import Ranks
from lethe.training.engine import Engine

STEPS = 3
RATE = 0.05
STAGES = (0, 1, 2, 3)


def execute(payload: dict[str, Any], report: Callable[[dict[str, Any]], None], ranks: Ranks) -> dict[str, Any]:
    """The final report: `backend`, `sum` of rank + 1 over ranks, and for every stage its losses or what went wrong."""
    engine = EngineConfig(workers=ranks.world, device=payload["device"])
    return {
        "verdict": "complete",
        "backend": dist.get_backend() if dist.is_initialized() else "none",
        "sum": _sum(ranks, engine.device),
        "stages": {str(stage): _stage(engine.model_copy(update={"stage": stage})) for stage in STAGES},
    }


def _sum(ranks: Ranks, device: str) -> float:
    value = torch.full((1,), float(ranks.rank + 1), device=device)
    if ranks.world > 1:
        dist.all_reduce(value)
    return value.item()


def _stage(config: EngineConfig) -> list[float] | str:
    """Squared error of a small regression before every step: falls, and is the same at every stage."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    inputs = torch.randn(32, 8)
    try:
        engine = Engine(model, Recipe(optimizer=Sophia(), engine=config))
        given, wanted = inputs.to(engine.device), inputs.sum(1, keepdim=True).to(engine.device)
        losses = []
        for _ in range(STEPS):
            loss = (engine.engine(given) - wanted).square().mean()
            losses.append(loss.item())
            engine.step(iter([loss / engine.world]), RATE)
        engine.close()
    except Exception:  # whatever DeepSpeed lacks here is the answer that the doctor wants
        return traceback.format_exc(limit=-1)
    return losses
