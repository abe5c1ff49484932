"""Seconds of one whole evaluation: scoring and greedy answers, on one core.

    python -m benchmarks.evaluation [--data ../shared/data/tiny_tofu] [--model full] [--threads 1]

On `tiny_tofu` that is 1,900 sequences and 300 answers of at most 200 tokens. Three models: as trained (answers end
after some 17 tokens), after 50 steps of gradient difference (what a search evaluates; some answers never end), and
the trained one with its end of sequence made impossible: every answer has 200 tokens, the worst case.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lethe.config.benchmark import TofuBenchmark
from lethe.config.evaluation import Evaluation
from lethe.data.benchmark import load_benchmark
from lethe.data.rows import Benchmark
from lethe.data.template import Template
from lethe.evaluation.eval_set import EvalSet, build_eval_set
from lethe.evaluation.evaluate import evaluate
from lethe.evaluation.generation import generate
from lethe.evaluation.scoring import score
from lethe.models.forward import scored_logits
from lethe.models.loading import load_model, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print one line per model."""
    shared = Path(os.environ.get("LETHE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=shared / "tiny_tofu", help="a folder with data/ and models")
    parser.add_argument("--model", default="full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not (options.data / options.model).is_dir():
        sys.exit(f"no model at {options.data / options.model}: name a folder with --data")
    torch.set_num_threads(options.threads)
    template = Template(load_tokenizer(options.data / options.model))
    benchmark = load_benchmark(TofuBenchmark(source=str(options.data / "data")))
    evals = build_eval_set(benchmark, template, Evaluation())
    start = load_model(options.data / options.model)
    evaluate(start, evals, Evaluation(max_rows=2), None)  # imports, first-use allocations
    print(f"{len(evals.pairs)} sequences, {len(evals.prompts)} answers, {options.threads} thread(s)")
    columns = f"{'model':<24} {'score':>7} {'generate':>9} {'tokens':>7} {'evaluate':>9}"
    print(f"{columns}   CPU seconds, best of {options.repeats}")
    report("as trained", start, evals, options.repeats)
    report("endless", endless(load_model(options.data / options.model), template.eos), evals, options.repeats)
    report("unlearned, 50 steps", unlearn(start, benchmark, template), evals, options.repeats)


def report(name: str, model: PreTrainedModel, evals: EvalSet, repeats: int) -> None:
    """Time the two passes, and the whole evaluation."""
    config, template = Evaluation(), evals.template
    model.eval()
    scoring, _ = best(repeats, lambda: score(model, evals.pairs, pad=template.pad, token_budget=config.token_budget))
    generating, answers = best(
        repeats,
        lambda: generate(
            model,
            evals.prompts,
            eos=template.eos,
            pad=template.pad,
            max_new_tokens=config.max_new_tokens,
            token_budget=config.token_budget,
        ),
    )
    whole, _ = best(repeats, lambda: evaluate(model, evals, config, None))
    print(f"{name:<24} {scoring:7.2f} {generating:9.2f} {sum(map(len, answers)):7d} {whole:9.2f}", flush=True)


def best(repeats: int, call: Callable[[], list]) -> tuple[float, list]:
    """Fewest CPU seconds (on one thread what a core of one's own takes, whoever shares the machine), last result."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        result = call()
        times.append(time.process_time() - began)
    return min(times), result


def endless(model: PreTrainedModel, eos: int) -> PreTrainedModel:
    """The same model, but the end of sequence never wins: its logit is always the mean logit."""
    with torch.no_grad():
        model.lm_head.weight[eos] = model.lm_head.weight.mean(0)
    return model


def unlearn(model: PreTrainedModel, benchmark: Benchmark, template: Template) -> PreTrainedModel:
    """50 steps of gradient difference as issue 2 names them: lr 3e-4, 20 forget and 20 retain rows."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-4, weight_decay=0.01)
    for step in range(50):
        optimizer.param_groups[0]["lr"] = 3e-4 * (1 - step / 50)
        optimizer.zero_grad()
        for rows, sign in ((benchmark.forget, -1), (benchmark.retain, 1)):
            pairs = [template.encode(rows[i].question, rows[i].answer) for i in torch.randperm(len(rows))[:20].tolist()]
            width = max(len(pair.ids) for pair in pairs)
            ids = torch.tensor([[*p.ids, *[template.pad] * (width - len(p.ids))] for p in pairs])
            at = [r * width + t for r, p in enumerate(pairs) for t in range(p.prompt_length - 1, len(p.ids) - 1)]
            places = torch.tensor(at)
            logits = scored_logits(model, ids, places)
            (sign * torch.nn.functional.cross_entropy(logits, ids.flatten()[places + 1])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


if __name__ == "__main__":
    main()
