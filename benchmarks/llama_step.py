"""One LoRA or full-parameter step of a Llama of Llama-3.2-1B's shape with random weights: milliseconds and memory.

    python -m benchmarks.llama_step --adapter lora [--checkpointing] [--optimizer sophia] [--device cuda] [--tiny]

bf16; gradient difference of rows of random tokens, the median of `--steps` steps after two that warm up; Sophia's mean
has one Hessian refresh in ten steps. Memory is by CUDA's own counter of bytes in tensors, before the first step and at
its highest (on a CPU the resident memory of the process). `--meet FOLDER --groups N`: wait, once warm, for the other
processes that meet in that folder, so that N of them step on one GPU at the same time.
"""

from __future__ import annotations

import argparse
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from lethe.config.adapter import FullParameters, Lora
from lethe.config.objective import GradDiff
from lethe.config.optimizer import AdamW, Sophia
from lethe.config.run import Engine as EngineConfig
from lethe.config.run import Recipe, Schedule
from lethe.data.batches import StepRows, plan
from lethe.data.template import Encoded
from lethe.models.adapters import attach
from lethe.models.forward import ScoredLM
from lethe.models.memory import peak_mb, reset_peak
from lethe.unlearning.engine import Engine
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.stepper import Stepper

ONE_BILLION = {
    "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
WARM, REFRESH = 2, 10  # steps before the first measured one, steps from one Hessian refresh to the next


def main() -> None:
    """Print one line."""
    args = arguments()
    torch.manual_seed(0)
    optimizer = Sophia(hessian_interval=REFRESH) if args.optimizer == "sophia" else AdamW()
    recipe = Recipe(
        objective=GradDiff(),
        optimizer=optimizer,
        adapter=Lora(rank=args.rank) if args.adapter == "lora" else FullParameters(),
        schedule=Schedule(batch_size=args.rows, epochs=1000),
        engine=EngineConfig(device=args.device, precision="bf16", gradient_checkpointing=args.checkpointing),
    )
    config = LlamaConfig(**(TINY if args.tiny else ONE_BILLION), tie_word_embeddings=True)
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = attach(model, recipe.adapter, seed=0).train()
    parameters = sum(p.numel() for p in model.parameters())
    rows = [random_row(config.vocab_size, args.length) for _ in range(2 * args.rows)]
    run = Stepper(Engine(ScoredLM(model), recipe), make_loss(recipe.objective), StepRows(rows, rows), 0, 0, 0)
    steps = list(plan(len(rows), len(rows), recipe.schedule, 0))
    reset_peak(args.device)
    before = peak_mb(args.device)
    times = []
    for number, step in enumerate(steps[: WARM + args.steps]):
        if number == WARM and args.meet:
            wait_for_others(args.meet, args.groups)
        began = now(args.device)
        run.step(step, 1e-6)
        if optimizer.hessian_refresh and number % REFRESH == WARM:
            run.refresh(step, "both")
        times.append(now(args.device) - began)
    # With refreshes the median would leave them out.
    typical = statistics.mean if optimizer.hessian_refresh else statistics.median
    case = f"{args.adapter}, {args.optimizer}{', checkpointing' if args.checkpointing else ''}, {args.device}"
    print(
        f"{parameters / 1e6:.1f}M parameters, {case}: {typical(times[WARM:]) * 1e3:.1f} ms a step "
        f"of 2 x {args.rows} rows of {args.length} tokens, {before:.0f} MiB before the first step, "
        f"peak {peak_mb(args.device):.0f} MiB",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", choices=("lora", "full"), required=True)
    parser.add_argument("--optimizer", choices=("adamw", "sophia"), default="adamw")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of two layers of width 64, to see that it runs")
    parser.add_argument("--rank", type=int, default=8)
    for name, default in (("rows", 8), ("length", 256), ("steps", 20), ("groups", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--meet", type=Path, help="a folder, empty at first, in which the groups meet")
    return parser.parse_args()


def random_row(vocabulary: int, length: int) -> Encoded:
    """Return a row of random tokens, a third of which are its prompt."""
    return Encoded(tuple(torch.randint(3, vocabulary, (length,)).tolist()), length // 3)


def now(device: str) -> float:
    """Return the seconds of a clock, once everything that was started on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def wait_for_others(folder: Path, groups: int) -> None:
    """Return as soon as `groups` processes have come here."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < groups:
        time.sleep(0.01)


if __name__ == "__main__":
    main()
