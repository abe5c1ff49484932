"""Interim evaluations beside whole ones, of the same models: what they cost, and whether they order models alike.

    python -m benchmarks.interim [STUDY] [--set KEY=VALUE ...] [--runs 4] [--interim 0.2]

Random trials of the study (default: `tofu`), in this process, without Ray. Each model of an evaluated epoch is measured
both ways, in turns. Prints CPU seconds (median) and tokens of both, and by metric Spearman's rank correlation over the
models with the mean distance of both values.
"""

from __future__ import annotations

import argparse
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import statistics
import time
from collections import defaultdict
from typing import Any

import torch
from scipy.stats import spearmanr

from lethe.benchmarks.base import EvaluationResult
from lethe.config.run import Evaluation
from lethe.config.study import Study, load_study
from lethe.evaluation.distributed import RankShard
from lethe.models.loading import load_model
from lethe.search.study_store import StudyStore
from lethe.study.preparation import prepare
from lethe.study.run_requests import assets_of
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.worker_entry import method_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", default="tofu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--interim", type=float, default=Evaluation().interim)
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(args.study, ("search.sampler=random", f"run.evaluation.interim={args.interim}", *args.set))
    both = Both(study)
    store = StudyStore(study)
    store.freeze(both.start)
    for _ in range(args.runs):
        proposal = store.ask()
        method = method_of(proposal.recipe.objective)
        with method(proposal.recipe, both.context, None, lambda _: None, Alone()) as outcome:
            print(f"run {proposal.number}: {outcome.report.verdict}, {len(both.points)} models", flush=True)
        store.tell(proposal.number, {"verdict": "stopped"})
    both.report()


class Both:
    """A task that measures every model on all rows, and on those of interim evaluations. It answers with the former."""

    def __init__(self, study: Study) -> None:
        prepared = prepare(study.benchmark, study.model, study.prompt)
        self.context = Context(assets_of(study, prepared))
        self.task, whole = self.context.task, study.first_recipe().evaluation
        self.configs = {"whole": whole, "interim": whole.before_last()}
        self.evals = {name: self.task.eval_set(config) for name, config in self.configs.items()}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.points: list[dict[str, EvaluationResult]] = []
        folders = {"start": prepared.start, "oracle": prepared.oracle, "base": prepared.base}
        models = {role: load_model(folders[role]) for role in study.benchmark.compared_with if folders[role]}
        self.references = {name: self._reference(models, name) for name in self.configs}
        self.start = self._measure(load_model(prepared.start), "whole", True).metrics
        self.seconds.clear()
        vars(self.context).update(task=self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def _reference(self, models: Any, name: str) -> Any:
        dumped = {}
        for role, model in models.items():
            result = self.task.baseline(model, self.evals[name], self.configs[name], RankShard())
            assert result.reference is not None
            dumped[role] = result.reference.dump()
        return self.task.reference_values(self.context.benchmark.reference(dumped), self.evals[name])

    def _measure(self, model: Any, name: str, last: bool) -> EvaluationResult:
        began = time.process_time()
        given = self.evals[name], self.configs[name], self.references[name], RankShard()
        result = self.task.evaluate(model, *given, last=last)
        self.seconds[name].append(time.process_time() - began)
        return result

    def evaluate(self, model: Any, evals: Any, config: Any, reference: Any, shard: Any, *, last: bool) -> Any:
        """Measure both ways; the whole one as a last evaluation."""
        self.points.append({name: self._measure(model, name, name == "whole") for name in self.configs})
        return self.points[-1]["whole"]

    def report(self) -> None:
        """Print what was measured."""
        tokens = {name: sum(len(row.ids) for _, row in evals.named_rows()) for name, evals in self.evals.items()}
        median = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        for what, unit, found in (("median", "CPU seconds", median), ("read", "tokens", tokens)):
            ratio = found["interim"] / found["whole"]
            print(f"{what}: interim {found['interim']:.3g}, whole {found['whole']:.3g} {unit}, ratio {ratio:.3f}")
        ratios = [a / b for a, b in zip(self.seconds["interim"], self.seconds["whole"], strict=True)]
        print(f"ratio of seconds by model: {min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} models")
        for metric in self.points[0]["whole"].metrics:
            pairs = [tuple(point[name].metrics.get(metric) for name in self.configs) for point in self.points]
            known = [(whole, some) for whole, some in pairs if whole is not None and some is not None]
            if len({whole for whole, _ in known}) > 2:
                rho = float(spearmanr(*zip(*known, strict=True)).statistic)
                gap = statistics.mean(abs(whole - some) for whole, some in known)
                print(f"  {metric:<28} Spearman {rho:6.3f}   mean distance {gap:.3g}   {len(known)} models")


if __name__ == "__main__":
    main()
