"""What early stopping is worth: recorded curves, replayed under every sampler with and without it.

    OMP_NUM_THREADS=1 python -m benchmarks.early_stopping correlate
    OMP_NUM_THREADS=1 python -m benchmarks.early_stopping replay [--trials 40] [--seeds 20]

`benchmarks.curves` has recorded what full runs of random configurations reported, epoch by epoch. `correlate` asks how
well an epoch's order of runs foretells the last one's. `replay` searches among the recorded runs (`benchmarks.replay`
says how) and spends the steps of `--trials` full runs. Hypervolume is that of complete runs, from the floors.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from scipy.stats import kendalltau, spearmanr

from benchmarks.replay import BETTER, GOALS, STOPPING, Recorded, Replay
from lethe.search import pareto

FILE = Path(__file__).parent / "data" / "tofu_curves.json"


def correlate(recorded: Recorded) -> None:
    """Spearman's rho and Kendall's tau between an epoch's order and the last one's."""
    final = recorded.objectives(recorded.epochs)
    feasible = recorded.space.feasible(final)
    front = recorded.space.front(final)
    print(f"{len(final)} complete runs, {int(feasible.sum())} feasible at the end, {len(front)} on the front")
    print("\nmetric at an epoch against an objective at the end: Spearman, Kendall")
    for goal in GOALS:
        target = recorded.column(goal)[:, -1]
        for name in recorded.metrics:
            if np.isnan(recorded.column(name)).all():
                continue
            cells = []
            for epoch in range(1, recorded.epochs):
                column = recorded.column(name)[:, epoch - 1]
                cells.append(f"{spearmanr(column, target)[0]:+.2f} {kendalltau(column, target)[0]:+.2f}")
            print(f"  {goal:<8} {name:<26} " + "   ".join(cells))
    print("\nplace at an epoch against place at the end: Kendall; front members among the best half, third, quarter")
    ends = pareto.places(final, BETTER, recorded.space.floors)
    for floors, label in ((recorded.space.floors, "floors first"), (None, "no floors")):
        for epoch in range(1, recorded.epochs):
            places = pareto.places(recorded.objectives(epoch), BETTER, floors)
            kept = [sum(places[row] * eta < len(places) for row in front) for eta in (2, 3, 4)]
            tau = kendalltau(places, ends)[0]
            print(f"  {label:<13} epoch {epoch}  tau {tau:+.2f}  of {len(front)}: " + " ".join(map(str, kept)))


def at(trace: Sequence[tuple[int, float]], steps: float) -> float:
    """The hypervolume when so many steps were spent."""
    return max((volume for spent, volume in trace if spent <= steps), default=0.0)


def replay(recorded: Recorded, trials: int, seeds: int, samplers: Sequence[str], stopping: Sequence[str]) -> None:
    """A line per sampler and way of stopping: means over seeds; `equal at` is the share of the budget at which the mean
    and the median hypervolume equal those of whole runs at the end."""
    budget = trials * recorded.steps[-1]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    everything = recorded.space.hypervolume(recorded.objectives(recorded.epochs))
    print(
        f"{len(recorded.params)} recorded runs, hypervolume of all {everything:.3f}; "
        f"budget {budget} steps, {seeds} seeds"
    )
    print(
        f"{'sampler':<8} {'stopping':<24} {'begun':>6} {'whole':>6} {'hv at 20 %':>10} "
        f"{'40 %':>6} {'55 %':>6} {'100 %':>13} {'equal at: mean':>15} {'median':>7}"
    )
    for sampler in samplers:
        full = {}
        for name in stopping:
            runs = [Replay(recorded, sampler, seed, STOPPING[name](recorded)).go(budget) for seed in range(seeds)]
            shares = {s: [at(run.trace, s * budget / 100) for run in runs] for s in range(1, 101)}
            equal = []
            for average in (statistics.mean, statistics.median):
                found = {s: average(values) for s, values in shares.items()}
                goal = full.setdefault(average, found[100])
                equal.append(next((f"{s} %" for s in range(1, 101) if found[s] >= goal - 1e-12), "never"))
            spread = statistics.stdev(shares[100]) if seeds > 1 else 0.0
            means = [statistics.mean(shares[s]) for s in (20, 40, 55, 100)]
            counts = [
                statistics.mean(value) for value in zip(*((len(run.trace), run.done) for run in runs), strict=True)
            ]
            print(
                f"{sampler:<8} {name:<24} {counts[0]:>6.1f} {counts[1]:>6.1f} {means[0]:>10.3f} {means[1]:>6.3f} "
                f"{means[2]:>6.3f} {means[3]:>6.3f} ±{spread:.3f} {equal[0]:>15} {equal[1]:>7}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("correlate", "replay"))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe", "nsga2"])
    parser.add_argument(
        "--stopping", nargs="+", default=list(STOPPING), help="the first is what others are compared with"
    )
    parser.add_argument("--file", type=Path, default=FILE)
    args = parser.parse_args()
    recorded = Recorded.load(args.file)
    if args.what == "correlate":
        correlate(recorded)
    else:
        replay(recorded, args.trials, args.seeds, args.samplers, args.stopping)


if __name__ == "__main__":
    main()
