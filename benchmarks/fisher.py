"""The cost of the starts of FILA and VILA: Fisher and SVD, once per study, against the trials of the default study.

    OMP_NUM_THREADS=1 python -m benchmarks.fisher [--trials 12] [--rank 16]

In this process, on the embedded model (trained first if LETHE_HOME has none): the row weights of both Fishers, the SVDs
and one NPO-Sophia trial of 5 epochs of batches of 4 with its evaluations, as in search_spaces/tofu.yaml: CPU seconds on
one core.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from lethe.config.adapter import Fila, Vila
from lethe.config.run import Recipe
from lethe.config.study import load_study
from lethe.models.fila import start_factors
from lethe.models.fisher import row_weights
from lethe.models.vila import adapter_row_weights
from lethe.study.preparation import prepare
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets
from lethe.unlearning.trainer import unlearn


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Median seconds of CPU time, since other processes may share the machine, and the last result."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        result = work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds), result


def trial(context: Context, recipe: Recipe) -> dict[str, Any]:
    """One whole run; its last report."""
    with unlearn(recipe, context, None, lambda report: None, Alone()) as outcome:
        return outcome.report.values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study("tofu")
    prepared = prepare(study.benchmark, study.model, study.prompt)
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as cache:
        context = Context(
            Assets(
                benchmark=study.benchmark,
                data_digest=prepared.digests.data,
                model_digest=prepared.digests.model,
                start=str(prepared.start),
                cache=cache,
                prompt=study.prompt,
            )
        )
        adapter = Fila(rank=args.rank)
        recipe = study.first_recipe().model_copy(update={"adapter": adapter})
        row_weights(context.start, context.forget[:2], context.retain[:2], adapter)  # warm
        fisher, weights = timed(lambda: row_weights(context.start, context.forget, context.retain, adapter))
        of_adapter, _ = timed(
            lambda: adapter_row_weights(context.start, context.forget, context.retain, Vila(rank=args.rank))
        )
        svd, _ = timed(lambda: start_factors(context.start, adapter, weights))
        trial(context, recipe)  # warm: engine, references, cached factors
        seconds, report = timed(lambda: trial(context, recipe))
    once, trials = fisher + svd, args.trials * seconds
    rows = min(adapter.fisher_rows, len(context.forget)) + min(adapter.fisher_rows, len(context.retain))
    print(f"{sum(p.numel() for p in context.start.parameters()) / 1e6:.2f}M parameters, {rows} rows in the Fisher")
    print(f"Fisher {fisher:.2f} s, VILA's {of_adapter:.2f} s, SVD {svd:.2f} s")
    print(f"a trial {seconds:.1f} s, its {report['optimizer_step']} steps and {recipe.schedule.epochs} evaluations")
    print(f"once per study: {once / (once + trials):.1%} of the work of {args.trials} trials")
    print(f"two groups, one waiting for the other: {once / (once + trials / 2):.1%} of the time")


if __name__ == "__main__":
    main()
