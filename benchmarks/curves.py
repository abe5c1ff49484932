"""Full curves of random configurations of `tofu`, recorded once: what `benchmarks.early_stopping` replays.

    OMP_NUM_THREADS=1 nice -n 10 python -m benchmarks.curves --out FILE [--runs 150] [--set dotted.key=value ...]

In this process, without Ray: 15 to 25 s of one core per run. The file has the settings with which it was begun. It is
written whole after every run, and a second call goes on where the first was interrupted.
"""

from __future__ import annotations

import argparse
import json
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import time
from pathlib import Path
from typing import Any

import torch

from lethe.benchmarks.base import ReferenceValues
from lethe.config.study import Study, load_study
from lethe.evaluation.distributed import RankShard
from lethe.models.loading import load_model
from lethe.search.study_store import StudyStore
from lethe.storage.paths import atomic_write
from lethe.study.preparation import prepare
from lethe.study.run_requests import assets_of
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.worker_entry import method_of

# The objectives, and what could stand in for them on a rung.
KEPT = (
    "forget",
    "utility",
    "forget_probability",
    "forget_rouge",
    "forget_truth_ratio",
    "retain_probability",
    "retain_rouge",
    "real_authors_probability",
    "world_facts_probability",
    "win_rate",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=150)
    parser.add_argument("--set", nargs="+", default=["search.sampler=random", "run.evaluation.every=3"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(args.out.read_text()) if args.out.exists() else {"metrics": KEPT, "set": args.set, "runs": []}
    study = load_study("tofu", found["set"])
    context, start, reference = _start_and_oracle(study)
    if found.setdefault("start", start) != start:
        raise SystemExit(f"the file has another start model's metrics: {found['start']}, here {start}")
    store = StudyStore(study)
    store.freeze(start)
    for number in range(args.runs):
        proposal = store.ask()
        if number < len(found["runs"]):
            assert found["runs"][number]["params"] == proposal.params, "the file is of another study"
        else:
            began = time.process_time()
            found["runs"].append(_record(proposal, context, reference))
            atomic_write(args.out, _text(found))
            print(f"{number} {time.process_time() - began:.1f} s {found['runs'][-1]['verdict']}", flush=True)
        store.tell(proposal.number, {"verdict": "stopped"})


def _start_and_oracle(study: Study) -> tuple[Context, dict[str, float], ReferenceValues]:
    """The context of all runs, the start model's metrics and the oracle's reference values."""
    prepared = prepare(study.benchmark, study.model, study.prompt)
    context = Context(assets_of(study, prepared))
    evaluation, shard = study.first_recipe().evaluation, RankShard(0, 1, Alone().gather)
    evals = context.eval_set(evaluation)
    reference = context.task.baseline(load_model(prepared.oracle), evals, evaluation, shard).reference
    metrics = context.task.evaluate(context.start, evals, evaluation, reference, shard, last=True).metrics
    return context, {name: _short(metrics[name]) for name in KEPT if name in metrics}, reference


def _record(proposal: Any, context: Context, reference: Any) -> dict[str, Any]:
    """`curve`: [reports, KEPT]; `steps`: optimizer steps at each."""
    reports: list[dict[str, Any]] = []
    method = method_of(proposal.recipe.objective)
    with method(proposal.recipe, context, reference, reports.append, Alone()) as outcome:
        last = outcome.report
    reports += [last.values] if last.verdict == "complete" else []
    return {
        "params": proposal.params,
        "verdict": last.verdict,
        "steps": [report["optimizer_step"] for report in reports],
        "seconds": [round(report["seconds"], 1) for report in reports],
        "curve": [[_short(report.get(name)) for name in KEPT] for report in reports],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _text(found: dict[str, Any]) -> str:
    """One run a line."""
    runs = ",\n".join(json.dumps(run) for run in found["runs"])
    head = json.dumps({key: value for key, value in found.items() if key != "runs"})
    return f'{head[:-1]}, "runs": [\n{runs}\n]}}\n'


if __name__ == "__main__":
    main()
