"""Seconds per trial of a real study on `tiny_tofu`: 50 AdamW steps of 20 + 20 rows (GradDiff), then the evaluation.

    OMP_NUM_THREADS=1 python -m benchmarks.sweep_throughput tests/golden/tiny_tofu [--trials 16]

One trial scores 1,900 sequences and generates 300 answers of at most 200 tokens. Prints seconds per trial, the
one-time start apart, and the share of time between first and last result that is neither steps nor evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

STUDY: dict[str, Any] = {
    "name": "throughput",
    "run": {
        "objective": {"name": "grad_diff"},
        "optimizer": {"name": "adamw", "learning_rate": 3e-4, "weight_decay": 0.01},
        "adapter": {"name": "full"},
        "schedule": {"epochs": 10, "batch_size": 20, "clip_norm": 1.0},
        "evaluation": {"every": 10, "max_new_tokens": 200},
    },
    "space": {"seed": {"type": "int", "low": 0, "high": 1_000_000}},
    "objectives": {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lethe-bench-"))
    os.environ["LETHE_HOME"] = str(folder / "home")
    data = args.data.resolve()
    study = STUDY | {
        "benchmark": {"source": str(data / "data")},
        "model": {"name": "pretrained", "path": str(data / "full"), "oracle": str(data / "retain90")},
        "search": {"sampler": "random", "trials": args.trials},
    }
    (folder / "throughput.yaml").write_text(yaml.safe_dump(study))
    from lethe.cli.sweep import main as sweep

    began = time.time()
    assert sweep([str(folder / "throughput.yaml"), "--reports", str(folder / "reports")]) == 0
    total = time.time() - began
    (path,) = (folder / "reports").glob("*/study.json")
    report(json.loads(path.read_text()), began, total)


def report(study: dict[str, Any], began: float, total: float) -> None:
    """Busy time is counted where it falls between the first and the last result. The start ends with the scores of
    start model and oracle, which two groups work out at once; a plain loop would need them too, so they stand apart."""
    trials = study["trials"]
    scoring = max(study[model]["metrics"]["evaluate_seconds"] for model in ("start", "oracle"))
    ends = sorted(t["ended"] for t in trials)
    first, last = ends[0], ends[-1]
    busy = sum(overlap(t, first, last) for t in trials)
    groups = 2 if len(os.sched_getaffinity(0)) > 1 else 1
    start = min(t["began"] for t in trials) - began
    steady = (last - min(t["began"] for t in trials)) / len(trials)
    steps = sorted(t["metrics"]["train_seconds"] for t in trials)[len(trials) // 2]
    evaluation = sorted(t["metrics"]["evaluate_seconds"] for t in trials)[len(trials) // 2]
    print(f"{len(trials)} trials on {groups} groups: {steady:.2f} s a trial, all in all {total:.0f} s")
    print(f"start {start:.1f} s, of which {scoring:.1f} s score start model and oracle")
    print(f"median trial: {steps:.2f} s of steps, {evaluation:.2f} s of evaluation")
    print(
        f"neither steps nor evaluation: {1 - busy / (groups * (last - first)):.1%} "
        "of the time between first and last result"
    )


def overlap(trial: dict[str, Any], first: float, last: float) -> float:
    """Seconds of steps and evaluation inside [first, last]; they end where the trial ends."""
    work = trial["metrics"]["train_seconds"] + trial["metrics"]["evaluate_seconds"]
    return max(0.0, min(trial["ended"], last) - max(trial["ended"] - work, first))


if __name__ == "__main__":
    main()
