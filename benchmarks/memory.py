"""Bytes that a rank holds before its first step and at the peak of a step, beside what `scaling plan` says.

    python -m benchmarks.memory                     # 1M and 16M parameters
    python -m benchmarks.memory --sizes 135M        # the shape of SmolLM2-135M
    python -m benchmarks.memory --model FOLDER      # a checkpoint of your own

Counts tensors by their storages, not what an allocator or the process holds (`lethe.scaling.instruments`). Every line
is a process of its own. Layouts of two ranks are measured on rank 0 of a group that PyTorch only pretends to have:
sizes depend on the group's size, not on what its members say.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

# width, layers, heads, key-value heads, feed-forward width, vocabulary, tied; the last is SmolLM2-135M's
SHAPES = {
    "1M": (128, 4, 4, 4, 384, 1024, False),
    "16M": (320, 10, 5, 5, 960, 4096, False),
    "135M": (576, 30, 9, 3, 1536, 49152, True),
}
ROWS, LENGTH, PROMPT = 8, 64, 32  # forget and retain rows of a step together, their tokens, those of the questions
RANK = 8


def layouts() -> Iterator[Any]:
    """Yield every layout that is measured."""
    from lethe.scaling.memory import Layout

    yield Layout(precision="bf16", rank=RANK)
    yield Layout(precision="fp32", rank=RANK)
    for precision in ("fp32", "bf16"):
        yield Layout(precision=precision)
    for stage in (1, 2, 3):
        yield Layout(stage, 2, "fp32")
        yield Layout(stage, 2, "bf16")
    yield Layout(3, 2, "bf16", RANK)
    yield Layout(precision="bf16", rank=RANK, checkpointing=True)
    yield Layout(checkpointing=True)
    yield Layout(2, 2, "bf16", checkpointing=True)
    yield Layout(3, 2, "bf16", checkpointing=True)
    yield Layout(2, 2, "bf16", offload="optimizer")
    yield Layout(3, 2, "bf16", offload="parameters")


def main() -> None:
    """Print a line for every size and layout."""
    parser = argparse.ArgumentParser(description="Bytes of tensors, measured and planned.")
    parser.add_argument("--sizes", default="1M,16M", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--model", type=Path, help="a folder with a checkpoint, instead of random weights")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print("RESULT", json.dumps(measure(**json.loads(args.case))))
        return
    print(
        f"{ROWS} rows of {LENGTH} tokens, {LENGTH - PROMPT} of them scored; LoRA of rank {RANK}; AdamW; MB = 1e6 bytes"
    )
    heads = ("size", "layout", "before step 1", "B/weight", "states", "planned", "peak", "planned", "ratio")
    print("{:>5}  {:<38} {:>13} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}".format(*heads))
    with tempfile.TemporaryDirectory() as temporary:
        folders = {args.model.name: args.model} if args.model else {}
        for size in () if args.model else args.sizes.split(","):
            folders[size] = write_model(Path(temporary) / size, size)
        for size, folder in folders.items():
            for layout in layouts():
                found = in_process(folder, asdict(layout))
                print(line(size, layout, found), flush=True)


def line(size: str, layout: Any, found: dict[str, float]) -> str:
    """Return one line of the table."""
    trained = "full" if layout.rank is None else "LoRA"
    more = (" checkpointing" if layout.checkpointing else "") + ("" if layout.offload == "none" else " offload")
    name = f"{trained} {layout.precision} stage {layout.stage} x {layout.workers}{more}"
    mb = {key: value / 1e6 for key, value in found.items()}
    return (
        f"{size:>5}  {name:<38} {mb['before']:>13.1f} {found['before'] / found['parameters']:>9.2f}"
        f" {mb['states']:>9.1f} {mb['planned_states']:>9.1f} {mb['peak']:>9.1f} {mb['planned_peak']:>9.1f}"
        f" {found['planned_peak'] / found['peak']:>6.2f}"
    )


def write_model(folder: Path, size: str) -> Path:
    """Write random weights of a Llama's shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, kv_heads, middle, vocabulary, tied = SHAPES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=middle, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=2048, tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def in_process(folder: Path, layout: dict[str, Any]) -> dict[str, float]:
    """Measure one layout in a process of its own."""
    case = json.dumps({"folder": str(folder), "layout": layout})
    done = subprocess.run([sys.executable, "-m", "benchmarks.memory", "--case", case], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.rsplit("RESULT ", 1)[1])
    return found


def measure(folder: str, layout: dict[str, Any]) -> dict[str, float]:
    """Return bytes: `before` the first step, `states` after it, `peak` of the second, and what the plan says."""
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from lethe.config.adapter import FullParameters, Lora
    from lethe.config.objective import Npo
    from lethe.config.optimizer import AdamW
    from lethe.config.run import Engine as EngineConfig
    from lethe.config.run import Recipe, Schedule
    from lethe.data.batches import RowKind, StepRows, plan
    from lethe.data.template import Encoded
    from lethe.models.adapters import attach
    from lethe.models.forward import ScoredLM
    from lethe.models.loading import load_config, load_model, shared_copy
    from lethe.models.transformer import BatchShape, Transformer
    from lethe.scaling.instruments import TensorMemory
    from lethe.scaling.memory import Layout, peak, states
    from lethe.unlearning.engine import Engine
    from lethe.unlearning.objectives import make_loss
    from lethe.unlearning.stepper import Stepper

    setup = Layout(**layout)
    world = str(setup.workers)
    os.environ.update(LOCAL_RANK="0", RANK="0", WORLD_SIZE=world, DS_ACCELERATOR="cpu")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=setup.workers)
    shape = Transformer.of_config(load_config(Path(folder)).to_dict())
    adapter = FullParameters() if setup.rank is None else Lora(rank=setup.rank)
    recipe = Recipe(
        objective=Npo(),
        optimizer=AdamW(learning_rate=1e-5),
        adapter=adapter,
        schedule=Schedule(batch_size=ROWS // 2 * setup.workers),
        engine=EngineConfig(
            stage=setup.stage,
            precision=setup.precision,
            workers=setup.workers,
            gradient_checkpointing=setup.checkpointing,
            offload=setup.offload,
        ),
    )
    outside = tensor_bytes()
    # As a run loads it: sharded from the files, shared with the start model, or its own.
    start = load_model(Path(folder), None if setup.stage == 3 else setup.precision)
    base = shared_copy(start) if setup.rank is not None and setup.stage < 3 else start
    if base is start:
        del start
    engine = Engine(ScoredLM(attach(base, adapter, seed=0).train(), in_parts=setup.stage < 3), recipe)
    del base
    before = tensor_bytes() - outside
    draw = torch.Generator().manual_seed(0)
    count = ROWS // 2 * setup.workers
    ids = torch.randint(3, shape.vocabulary, (2 * count, LENGTH), generator=draw).tolist()
    rows = [Encoded(tuple(row), PROMPT) for row in ids]
    given = StepRows(rows[:count], rows[count:])
    stepper = Stepper(engine, make_loss(recipe.objective), given, 0, 0, 0, {RowKind.FORGET: torch.zeros(count)})
    step = next(plan(count, count, recipe.schedule, 0))
    stepper.step(step, 1e-5)
    held = tensor_bytes() - outside
    with TensorMemory() as tensors:
        stepper.step(step, 1e-5)
    batch = BatchShape.uniform(ROWS, LENGTH, LENGTH - PROMPT)
    planned = peak(shape, setup, batch)
    engine.close()
    return {
        "parameters": float(shape.parameters),
        "before": float(before),
        "states": float(held),
        "peak": float(held + tensors.peak),
        "planned_states": float(states(shape, setup).total),
        "planned_peak": planned.total,
    }


def tensor_bytes() -> int:
    """Return the bytes of all storages that a tensor in this process stands on, each counted once."""
    import torch

    gc.collect()
    tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
    # ZeRO keeps a rank's part of a weight as an attribute, and a gradient is one of the engine's C++ objects.
    more = [p.grad for p in tensors if p.is_leaf and p.grad is not None]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in (*tensors, *more) if _is_real(t)}
    return sum(storages.values())


def _is_real(tensor: Any) -> bool:
    return tensor.device.type != "meta" and tensor.layout is not None


if __name__ == "__main__":
    main()
