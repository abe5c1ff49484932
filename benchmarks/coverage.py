"""Coverage of the intervals of docs/METHODS.md section 6a, and the level of its test, where two arms are equal.

Both arms are the same random search, drawn anew from the 150 recorded runs of `benchmarks/data`, so every difference is
chance: the interval should hold 0 in 95 of 100 cases, and the test should call an arm better or worse in 5.

    python -m benchmarks.coverage [--cases 600] [--seeds 5] [--trials 24]
"""

from __future__ import annotations

import argparse
import math
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t

from benchmarks.replay import Recorded
from lethe.reporting.comparison.scores import ArmScores
from lethe.reporting.comparison.statistics import ALPHA, REPLICATES, bootstrap_interval, paired_t

RECORDED = Path(__file__).parent / "data" / "tofu_curves.json"


def recorded_gains() -> np.ndarray:
    """The gains [runs, 2] of every recorded run at its end, 0 where it is not feasible."""
    recorded = Recorded.load(RECORDED)
    values = recorded.objectives(recorded.epochs)
    return np.where(recorded.space.feasible(values)[:, None], recorded.space.gains(values), 0.0)


def arm(gains: np.ndarray) -> ArmScores:
    """The trials of an arm with one seed."""
    return ArmScores(gains, utility=None, epochs=None, never=0.0, costs={})


def case(gains: np.ndarray, seeds: int, trials: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The interval of the mean difference of two equal arms, by each way of making it; p is both ends of `test`."""
    differences, pools = [], []
    for _ in range(seeds):
        first, second = (arm(gains[rng.integers(len(gains), size=trials)]) for _ in range(2))
        differences.append(second.first(trials)["volume"] - first.first(trials)["volume"])
        drawn = [one.resampled(trials, REPLICATES, rng)["volume"] for one in (first, second)]
        pools.append(drawn[1] - drawn[0])
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(seeds)
    reach = t.ppf(0.975, seeds - 1) * error
    p = paired_t(differences)
    return {
        "seeds and trials drawn (section 6a)": bootstrap_interval(np.array(pools)),
        "seeds drawn, not trials": bootstrap_interval(np.repeat(np.array(differences)[:, None], REPLICATES, axis=1)),
        "t": (mean - reach, mean + reach),
        "test": (p, p),
    }


def summary(cases: Sequence[dict[str, tuple[float, float]]]) -> list[str]:
    """A line for each way: in how many cases it holds 0, its mean width; and how often the test errs."""
    lines = []
    for way in cases[0]:
        ends = np.array([one[way] for one in cases])
        if way == "test":
            wrong = float((ends[:, 0] < ALPHA).mean())
            lines.append(f"{'better or worse by the t test':38} {wrong:6.1%}")
            continue
        holds = float(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean())
        lines.append(f"{way:38} {holds:6.1%}  width {np.mean(ends[:, 1] - ends[:, 0]):.3f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("cases", 600), ("seeds", 5), ("trials", 24)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    gains, rng = recorded_gains(), np.random.default_rng(0)
    cases = [case(gains, given.seeds, given.trials, rng) for _ in range(given.cases)]
    print(f"two equal random searches of {given.trials} trials, {given.seeds} seeds, {given.cases} cases")
    print("\n".join(summary(cases)))


if __name__ == "__main__":
    main()
