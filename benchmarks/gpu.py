"""Everything that wants a GPU, in one command of a few minutes: bf16 steps of Sophia against AdamW, IHL against
cross-entropy. SOUL's table 6 has 30 against 30 minutes and 76,362 against 76,378 MiB for the first of them.

    python -m benchmarks.gpu [--device cuda] [--small]

The models are random Llamas: 0.16, 0.5 and 1.7 billion parameters (--small: tiny ones, to see that it runs).
"""

from __future__ import annotations

import argparse
import subprocess
import sys

SIZES = [  # hidden, layers, heads, vocabulary
    (768, 12, 12, 32000),
    (1280, 20, 20, 32000),
    (2048, 28, 16, 32000),
]
SMALL = [(64, 2, 2, 512)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    for hidden, layers, heads, vocabulary in SMALL if args.small else SIZES:
        size = ["--hidden", hidden, "--layers", layers, "--heads", heads, "--vocab", vocabulary]
        run(
            "step_time",
            *size,
            "--device",
            args.device,
            "--precision",
            "bf16",
            "--rows",
            8,
            "--length",
            100 if args.small else 256,
        )
    for dtype in ("float32", "bfloat16"):
        shape = ["--tokens", 64, "--vocabulary", 500] if args.small else ["--tokens", 4096, "--vocabulary", 32000]
        run("ihl", *shape, "--device", args.device, "--dtype", dtype)


def run(name: str, *arguments: object) -> None:
    """One benchmark in a process of its own: a GPU's memory starts empty."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    print("$ python", *command[1:], flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
