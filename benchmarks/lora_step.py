"""A LoRA step of a real model beside a plain transformers and peft loop: seconds and memory, side by side.

    OMP_NUM_THREADS=1 python -m benchmarks.lora_step --data FOLDER [--model MODEL] [--steps 5] [--rank 32] [--pairs 4]

`--data`: the folder of TOFU's files; `--model`: SmolLM2-135M-Instruct, or what else a study takes as a model. Every
way has a process of its own, with one thread; they take the same steps in turns, so that a busy machine slows all
alike. Seconds are CPU seconds, medians over the steps after a first one. `resident` is the kernel's high-water mark of
the process, libraries and weights included; `tensors` the most bytes of live tensors in a step, weights and optimizer
state not included. Ratios are to the plain loop, which pads its rows and takes all logits, as tutorials do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

# A way: a name, and what it changes in the schedule and the engine; the plain loop has none.
WAYS: dict[str, dict[str, dict[str, object]] | None] = {
    "plain": None,
    "lethe": {},
    "lethe, padded": {"schedule": {"packing": "off"}},
    "lethe, micro_tokens 256": {"schedule": {"micro_tokens": 256}},
    "lethe, checkpointing": {"engine": {"gradient_checkpointing": True}},
    "lethe, both": {"engine": {"gradient_checkpointing": True}, "schedule": {"micro_tokens": 256}},
}
START = -50.0  # a row's log-probability under the start model


def main() -> None:
    """Print one line per way."""
    from benchmarks.real_model import REAL  # here, since the ways' processes import this module too
    from lethe.study.model_sources import plain_folder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=REAL)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=4, help="forget rows in a step, with as many retain rows")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    args.model = plain_folder(args.model, "--model")
    ways = args.ways
    load = os.getloadavg()[0]
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for way in ways:
        pipes[way], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, way, args), daemon=True).start()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(args.steps + 1):
        for way in ways:
            pipes[way].send(number)
            spent = pipes[way].recv()
            if number:
                seconds[way].append(spent)
    memory = {}
    for way in ways:
        pipes[way].send(None)
        memory[way] = pipes[way].recv()
    print(f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after; {args.steps} steps of 2 x {args.pairs} rows")
    base = ways[0]
    for way in ways:
        median = statistics.median(seconds[way])
        parts = [f"{way:26} {median:6.2f} s  {median / statistics.median(seconds[base]):5.2f}"]
        for i, name in enumerate(("resident", "tensors")):
            parts.append(f"{name} {memory[way][i]:6.0f} MiB  {memory[way][i] / memory[base][i]:5.2f}")
        print("   ".join(parts))


def serve(pipe: Connection, way: str, args: argparse.Namespace) -> None:
    """Take the step whose number comes through the pipe and answer its CPU seconds; None: answer the memory and end."""
    import torch

    from lethe.models.memory import peak_mb, reset_peak
    from lethe.scaling.instruments import TensorMemory

    torch.set_num_threads(1)
    step = stepper(way, args)
    while (number := pipe.recv()) is not None:
        began = time.process_time()
        step(number)
        pipe.send(time.process_time() - began)
        if number == 0:
            reset_peak("cpu")
    resident = peak_mb("cpu")
    with TensorMemory() as tensors:
        step(1)
    pipe.send((resident, tensors.peak / 2**20))


def stepper(way: str, args: argparse.Namespace) -> Callable[[int], None]:
    """Return a function that takes the step of a number, in this way."""
    import torch

    from lethe.config.adapter import Lora
    from lethe.config.objective import Npo
    from lethe.config.optimizer import AdamW
    from lethe.config.run import Engine as EngineConfig
    from lethe.config.run import Recipe, Schedule
    from lethe.data.batches import RowKind, StepRows, plan
    from lethe.data.template import Template
    from lethe.models.adapters import attach
    from lethe.models.forward import ScoredLM
    from lethe.models.loading import load_model, load_tokenizer
    from lethe.unlearning.engine import Engine
    from lethe.unlearning.objectives import make_loss
    from lethe.unlearning.stepper import Stepper, pack_width

    template, changes, count = Template(load_tokenizer(args.model)), WAYS[way], 10 * args.pairs
    rows = StepRows(
        *(
            [template.encode(row["question"], row["answer"]) for row in map(json.loads, lines)]
            for lines in (
                Path(args.data, f"{name}.json").read_text().splitlines()[-count:] for name in ("forget10", "retain90")
            )
        )
    )
    recipe = Recipe(
        objective=Npo(),
        optimizer=AdamW(learning_rate=1e-4),
        adapter=Lora(rank=args.rank),
        schedule=Schedule(batch_size=args.pairs, epochs=100, **(changes or {}).get("schedule", {})),
        engine=EngineConfig(**(changes or {}).get("engine", {})),
    )
    model = attach(load_model(args.model), recipe.adapter, seed=0).train()
    steps = list(plan(count, count, recipe.schedule, 0))
    if changes is None:
        return plain(model, rows, [step.pairs for step in steps], template.pad)
    run = Stepper(
        Engine(ScoredLM(model), recipe),
        make_loss(recipe.objective),
        rows,
        template.pad,
        rank=0,
        seed=0,
        # Not the start model's: any constants cost the same.
        start_log_probs={RowKind.FORGET: torch.full((count,), START)},
        micro_tokens=recipe.schedule.micro_tokens,
        pack_for=pack_width(model, rows, recipe.schedule),
    )
    return lambda number: run.step(steps[number], 1e-4) and None


def plain(model: object, rows: object, steps: list, pad: int) -> Callable[[int], None]:
    """NPO as a careful tutorial writes it: padded rows with a mask, all logits, cross-entropy, clipping, AdamW."""
    import torch
    from torch.nn.functional import cross_entropy, logsigmoid

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step(number: int) -> None:
        batch = [rows.forget[f] for f, _ in steps[number]] + [rows.retain[r] for _, (r,) in steps[number]]
        width, forget = max(len(row.ids) for row in batch), len(steps[number])
        ids = torch.full((len(batch), width), pad)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for r, row in enumerate(batch):
            n = len(row.ids)
            ids[r, :n], mask[r, :n] = torch.tensor(row.ids), 1
            labels[r, row.prompt_length : n] = torch.tensor(row.answer)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        nll = cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
        away = -20 * logsigmoid(0.1 * (nll[:forget].sum(1) + START)).mean()
        loss = away + nll[forget:].sum() / (labels[forget:] != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
