"""Is a step's time in proportion to parameters? AdamW steps of the embedded family by size, on batches of one shape.

    OMP_NUM_THREADS=1 python -m benchmarks.step_by_size [--rounds 30] [--rows 8] [--length 31]

The sizes are those of `scaling-tofu`. They take turns, one step each, so that a slow minute of the machine falls on
all of them; `scaling tofu` times the benchmark's own rows, whose batches have many shapes. The law is fitted without
the largest size, as there. CPU seconds of the model and the optimizer alone: median, and 10 and 90 % of the steps.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import statistics
import time

import torch

from lethe.config.scaling import load_scaling
from lethe.models.pretraining import new_model
from lethe.scaling.law_fitting import Samples, judge

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rounds", 30), ("rows", 8), ("length", 31)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {name: new_model(config, config.vocab_size) for name, config in load_scaling("tofu").models().items()}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    parameters = {name: float(sum(p.numel() for p in model.parameters())) for name, model in models.items()}
    ids = torch.randint(3, 1000, (args.rows, args.length))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(WARM_UP + args.rounds):
        for name, model in models.items():
            began = time.thread_time()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if turn >= WARM_UP:
                seconds[name].append(time.thread_time() - began)
    for name, times in seconds.items():
        median, deciles = statistics.median(times), statistics.quantiles(times, n=10)
        span = f"({deciles[0] * 1e3:.1f} to {deciles[-1] * 1e3:.1f})"
        millions = parameters[name] / 1e6
        each = f"{median * 1e3 / millions:5.1f} per million"
        print(f"{name:<5} {millions:6.2f}M  {median * 1e3:6.1f} ms a step {span}  {each}")
    law = judge(Samples(tuple(parameters.values()), tuple(map(tuple, seconds.values()))))
    print(
        f"{law.form} law without the largest: {law.trained.law.offset * 1e3:.1f} ms +"
        f" parameters^{law.trained.law.exponent:.2f}; predicted {law.predicted * 1e3:.0f} ms, measured"
        f" {law.measured * 1e3:.0f}, {law.error:+.0%}"
    )


if __name__ == "__main__":
    main()
