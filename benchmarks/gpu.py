"""Measurements that want a GPU, in one command of a few minutes, each measurement in a process of its own.

    python -m benchmarks.gpu [--device cuda] [--tiny]

1. Steps of a Llama of Llama-3.2-1B's shape, random weights, bf16: LoRA and full parameters, with and without gradient
   checkpointing; Sophia against AdamW over all parameters (SOUL's table 6: 30 against 30 minutes, 76,362 against
   76,378 MiB); two groups on one GPU (`resources.gpus_per_worker: 0.5` without Ray) against one.
2. Sophia against AdamW in turns, in one process: random Llamas of 0.16, 0.5 and 1.7 billion parameters.
3. IHL against cross-entropy.

`--tiny`: tiny models, to see that it runs: with `--device cpu` within two minutes.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import subprocess
import sys
import tempfile

from lethe.config.devices import gpus, torch_has_cuda

SIZES = [  # hidden, layers, heads, vocabulary
    (768, 12, 12, 32000),
    (1280, 20, 20, 32000),
    (2048, 28, 16, 32000),
]
TINY = [(64, 2, 2, 512)]


def main() -> None:
    """Run every measurement, which prints its own lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not (gpus() and torch_has_cuda()):
        parser.error("this machine has no GPU that torch can use; --device cpu --tiny runs every measurement, tiny")
    llama_steps(args.device, args.tiny)
    for hidden, layers, heads, vocabulary in TINY if args.tiny else SIZES:
        size = ["--hidden", hidden, "--layers", layers, "--heads", heads, "--vocab", vocabulary]
        rows = ["--rows", 8, "--length", 100 if args.tiny else 256, *(["--blocks", 2] if args.tiny else [])]
        run(["step_time", *size, "--device", args.device, "--precision", "bf16", *rows])
    for dtype in ("float32", "bfloat16"):
        shape = ["--tokens", 64, "--vocabulary", 500] if args.tiny else ["--tokens", 4096, "--vocabulary", 32000]
        run(["ihl", *shape, "--device", args.device, "--dtype", dtype])


def llama_steps(device: str, tiny: bool) -> None:
    """Run the cases of `benchmarks.llama_step`: one group each, then two groups at the same time."""
    size = ["--device", device, *(["--tiny", "--rows", 2, "--length", 40, "--steps", 3] if tiny else [])]
    cases = [["--adapter", adapter, *more] for adapter in ("lora", "full") for more in ([], ["--checkpointing"])]
    for case in [*cases, ["--adapter", "full", "--optimizer", "sophia"]]:
        run(["llama_step", *case, *size])
    with tempfile.TemporaryDirectory() as folder:
        run(["llama_step", "--adapter", "lora", "--groups", 2, "--meet", folder, *size], groups=2)


def run(arguments: list[object], groups: int = 1) -> None:
    """Run one benchmark in `groups` processes at the same time, each of its own: a GPU's memory starts empty. Raises
    CalledProcessError if one of them fails."""
    module, *rest = map(str, arguments)
    command = [sys.executable, "-m", f"benchmarks.{module}", *rest]
    print("$ python", *command[1:], f"   # {groups} at the same time" if groups > 1 else "", flush=True)
    running = [subprocess.Popen(command) for _ in range(groups)]
    for process in running:
        if process.wait() != 0:
            for other in running:
                other.kill()
            raise subprocess.CalledProcessError(process.returncode, command)


if __name__ == "__main__":
    main()
