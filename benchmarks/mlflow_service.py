"""Several studies at once against `python -m platform.services`: is every metric there, once, and does MLflow keep up?

    OMP_NUM_THREADS=1 python -m benchmarks.mlflow_service [--studies 2] [--trials 50] [--epochs 3] [--seconds 0.1]

Each study is a process with its own Ray and real trials of Ray Tune that do nothing (those of `platform_scale`). What
they know of their trials is compared with what MLflow gives back: every run, every metric, every step. Needs the extra
`services`; as root, a temporary folder that other users can enter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

PORTS = 15055, 19055


def one_study(args: argparse.Namespace) -> None:
    """In a process of its own: run it, and leave what it knows in a file."""
    os.environ["LETHE_HOME"] = tempfile.mkdtemp(prefix="lethe-bench-")
    from benchmarks.platform_scale import study_of
    from lethe.pool.cluster import connect, prepare_environment

    prepare_environment()
    connect(None)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    found = study_of(args.trials, args.at_once, args.seconds, "random", uri=uri, name=args.study, epochs=args.epochs)
    marks = found["marks"]
    known = {
        "trials": [trial.model_dump(mode="json") for trial in found["trials"]],
        "seconds": marks[-1]["at"] - marks[0]["at"],
        "queued": [mark["queued"] for mark in marks],
        "flush": found["flush"],
    }
    args.result.write_text(json.dumps(known))


def studies(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """All of them at once; what each knows."""
    files = {f"study-{number}": folder / f"{number}.json" for number in range(args.studies)}
    shared = [
        f"--trials={args.trials}",
        f"--epochs={args.epochs}",
        f"--seconds={args.seconds}",
        f"--at-once={args.at_once}",
    ]
    command = [sys.executable, "-m", "benchmarks.mlflow_service", *shared]
    running = [subprocess.Popen([*command, f"--study={name}", f"--result={file}"]) for name, file in files.items()]
    assert not any(code for code in [process.wait() for process in running])
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def compare(name: str, known: dict[str, Any]) -> str:
    """One line: what MLflow has of a study, beside what the study has."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("lethe").experiment_id
    runs = client.search_runs([experiment], f"tags.`lethe.study` = '{name}'", max_results=10_000)
    children = [run for run in runs if "lethe.run" in run.data.tags]
    twice = sum(count - 1 for count in Counter(run.data.tags["lethe.run"] for run in children).values())
    by_run = {run.data.tags["lethe.run"]: run for run in children}
    wanted = missing = 0
    for trial in known["trials"]:
        run = by_run.get(trial["run"])
        for key in trial["series"][0]:
            history = client.get_metric_history(run.info.run_id, key) if run else []
            have = {(metric.step, metric.value) for metric in history}
            asked = {(int(report["epoch"]), report[key]) for report in trial["series"]}
            wanted, missing = wanted + len(asked), missing + len(asked - have)
            twice += len(history) - len(have)
    ended = sum(run.info.status == "FINISHED" for run in children)
    each = known["seconds"] / (len(known["trials"]) - 1)
    return (
        f"{name}: {len(known['trials'])} trials, {len(children)} runs, {ended} of them ended; {wanted} metric values,"
        f" {missing} missing, {twice} twice; {len(runs) - len(children)} others; {each:.2f} s a trial, queue"
        f" {statistics.median(known['queued']):.0f} (median) {max(known['queued'])} (most) calls,"
        f" {known['flush']:.1f} s for finish"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="an epoch's")
    parser.add_argument("--at-once", type=int, default=2, help="trials of one study")
    parser.add_argument("--study", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.study:
        return one_study(args)
    from lethe.ops.dev_services.supervisor import run_services

    folder = Path(tempfile.mkdtemp(prefix="lethe-bench-", dir="/tmp"))
    folder.chmod(0o711)
    began = time.perf_counter()
    with run_services(folder / "services", *PORTS) as running:
        print(f"the services are up after {time.perf_counter() - began:.0f} s", flush=True)
        os.environ |= dict(re.findall(r"^export (\w+)=(\S+)$", running.login.read_text(), re.M))
        for name, known in studies(args, folder).items():
            print(compare(name, known), flush=True)


if __name__ == "__main__":
    main()
