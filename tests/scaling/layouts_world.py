"""In a process of its own: what DeepSpeed holds under every layout, as rank 0 of a group that only pretends to exist.

Prints one JSON list of [stage, precision, rank, workers, {part: bytes}]. Sizes depend on the group's size, not on what
its members say, so PyTorch's fake process group stands in for the others.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from lethe.config.adapter import FullParameters, Lora
from lethe.config.model import EmbeddedModel
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.models.pretraining import new_model
from lethe.unlearning.engine import Engine

MODEL = EmbeddedModel(hidden_size=42, layers=2, heads=3, vocab_size=301)  # sizes that five workers do not divide


def unique_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the storages behind these tensors, each once, meta tensors left out."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t.device.type != "meta"}
    return sum(storages.values())


def held(engine: Engine, model: torch.nn.Module, stage: int) -> dict[str, int]:
    """Bytes of the tensors themselves."""
    zero: Any = engine._zero
    weights = [p.ds_tensor if stage == 3 else p.data for p in model.parameters()]
    master = getattr(zero, "single_partition_of_fp32_groups", None) or getattr(
        zero, "fp32_partitioned_groups_flat", None
    )
    if stage == 0:
        master = [t for group in getattr(zero, "fp32_groups", []) for t in group]
    moments = [
        t for state in engine.optimizer.state.values() for t in state.values() if torch.is_tensor(t) and t.numel() > 1
    ]
    gradients = list(zero._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition.values()) if stage == 3 else []
    parts = {"weights": weights, "master": master or [], "moments": moments, "gradients": gradients}
    return {name: unique_bytes(tensors) for name, tensors in parts.items()}


def measure(stage: int, precision: str, rank: int | None, workers: int) -> dict[str, int]:
    """One engine after one step."""
    torch.manual_seed(0)
    adapter = FullParameters() if rank is None else Lora(rank=rank)
    model = attach(new_model(MODEL, MODEL.vocab_size), adapter, seed=0)
    recipe = Recipe(adapter=adapter, engine=EngineConfig(stage=stage, precision=precision, workers=workers))
    engine = Engine(ScoredLM(model), recipe)
    ids = torch.randint(3, 300, (2, 9))
    engine.step([lambda: engine.engine(ids, torch.arange(18), lambda logits, _: logits.float().pow(2).mean())], 1e-3)
    found = held(engine, model, stage)
    engine.close()
    return found


def main() -> None:
    workers = int(sys.argv[1])
    os.environ.update(LOCAL_RANK="0", RANK="0", WORLD_SIZE=str(workers), DS_ACCELERATOR="cpu")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=workers)
    cases = itertools.product((0, 1, 2, 3), ("fp32", "bf16"), (None, 4), (workers,))
    print("RESULT", json.dumps([[*case, measure(*case)] for case in cases]))


if __name__ == "__main__":
    main()
