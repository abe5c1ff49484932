"""Sophia (k = 10) against AdamW in the same engine: seconds per step, refreshes included, and memory.

    OMP_NUM_THREADS=1 python -m benchmarks.step_time [--device cuda] [--hidden 128 --layers 4 --vocab 1024]

Blocks of ten steps of either optimizer take turns in one process, so that a noisy machine disturbs both alike. On a GPU
the peak is that of each engine's own warm-up block, above what was allocated before it.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lethe.config.adapter import FullParameters
from lethe.config.objective import GradDiff
from lethe.config.optimizer import AdamW, Sophia
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe, Schedule
from lethe.data.batches import StepRows, plan
from lethe.data.template import Encoded
from lethe.models.forward import ScoredLM
from lethe.unlearning.engine import Engine
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.stepper import Stepper

BLOCK = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("hidden", 128), ("layers", 4), ("vocab", 1024), ("heads", 4), ("rows", 20), ("length", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--stage", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    return parser.parse_args()


def stepper(args: argparse.Namespace, optimizer: AdamW | Sophia) -> tuple[Stepper, Recipe]:
    """A random Llama under this optimizer, with random rows."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 21 // 8,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        max_position_embeddings=512,
    )
    recipe = Recipe(
        objective=GradDiff(),
        optimizer=optimizer,
        adapter=FullParameters(),
        schedule=Schedule(batch_size=args.rows, epochs=1000, decay=False),
        engine=EngineConfig(device=args.device, stage=args.stage, precision=args.precision),
    )
    rows = [
        Encoded(tuple(torch.randint(3, args.vocab, (args.length,)).tolist()), args.length // 3)
        for _ in range(2 * args.rows)
    ]
    engine = Engine(ScoredLM(LlamaForCausalLM(config)), recipe)
    return Stepper(engine, make_loss(recipe.objective), StepRows(rows, rows), 0, 0, 0), recipe


def block(run: Stepper, recipe: Recipe, steps: list) -> float:
    """Seconds per step over ten steps, with one refresh if the optimizer is Sophia."""
    synchronise = torch.cuda.synchronize if recipe.engine.device == "cuda" else lambda: None
    synchronise()
    began = time.perf_counter()
    for step in steps:
        run.step(step, recipe.optimizer.learning_rate)
    if recipe.optimizer.hessian_refresh:
        run.refresh(steps[-1], "both")
    synchronise()
    return (time.perf_counter() - began) / len(steps)


def allocated(device: str) -> int:
    """Bytes in tensors on the GPU, from where its peak counts anew; 0 on a CPU."""
    if device != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak(device: str) -> int:
    """Largest bytes in tensors on the GPU since `allocated`; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0


def state_bytes(run: Stepper) -> int:
    """Bytes of the optimizer's own tensors."""
    states = run.engine.optimizer.state.values()
    return sum(v.numel() * v.element_size() for s in states for v in s.values() if torch.is_tensor(v) and v.numel() > 1)


def main() -> None:
    args = arguments()
    if args.device == "cpu":
        torch.set_num_threads(1)
    configs = {"adamw": AdamW(learning_rate=1e-5), "sophia": Sophia(learning_rate=1e-5, hessian_interval=BLOCK)}
    steps = list(plan(2 * args.rows, 2 * args.rows, Schedule(batch_size=args.rows, epochs=1000), 0))
    runs: dict[str, tuple[Stepper, Recipe]] = {}
    peaks: dict[str, int] = {}
    for name, optimizer in configs.items():
        before = allocated(args.device)
        runs[name] = stepper(args, optimizer)
        block(*runs[name], steps[:BLOCK])
        peaks[name] = peak(args.device) - before
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(1, args.blocks + 1):
        for name, (run, recipe) in runs.items():
            times[name].append(block(run, recipe, steps[i * BLOCK : (i + 1) * BLOCK]))
    parameters = sum(p.numel() for p in runs["adamw"][0].engine.module.parameters())
    ratios = [s / a for s, a in zip(times["sophia"], times["adamw"], strict=True)]
    print(
        f"{parameters / 1e6:.2f}M parameters, {args.device}, {args.precision}, stage {args.stage}, {args.blocks} blocks"
    )
    for name, found in times.items():
        held = f"state {state_bytes(runs[name][0]) / 2**20:8.2f} MiB"
        above = f"   peak {peaks[name] / 2**20:8.0f} MiB" if args.device == "cuda" else ""
        print(f"{name:<8} {statistics.median(found) * 1e3:9.2f} ms a step   {held}{above}")
    print(f"sophia / adamw  {statistics.median(ratios):.3f}  (blocks {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
