"""One whole evaluation beside the same metrics from a plain batched `transformers` loop, on one core.

    python -m benchmarks.evaluation [--data tests/golden/tiny_tofu] [--model full] [--threads 1] [--repeats 2]
    python -m benchmarks.evaluation --real [MODEL] --data FOLDER [--rows 10] [--repeats 3]
    python -m benchmarks.evaluation --memory [--vocabulary 131072]

The loop (benchmarks/plain_evaluation.py) is what a careful user writes: every pair once in batches of 64, answers by
`generate` in batches of 100 with a KV cache. It makes the same per-token values, from which both get all their metrics
by the same functions, and those are compared. `--repeated` is a loop that forwards answers once per family of
metrics, as public frameworks do. Three models: as trained (answers end after some 17 tokens), after 50 steps of
gradient difference (what a search evaluates; some answers never end), and the trained one with its end of sequence
made impossible: every answer has 200 tokens, the worst case.

`--real`: SmolLM2-135M-Instruct (or MODEL: a folder, or what else a study takes) on TOFU's own rows in the folder that
`--data` names, the first `--rows` of each split. Two models: one that has learnt their answers by heart (a LoRA,
trained in ten minutes and kept under LETHE_HOME), and SmolLM2 as it is, which knows no answer and often speaks until
its 200 tokens are spent, as models do after forgetting. Both evaluations take turns; medians of CPU seconds, and the
peak of the process.

`--memory` prints the peak of this process over its size before, for a small model of random weights and that
vocabulary, as the number of rows grows.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.plain_evaluation import evaluate_plainly
from benchmarks.real_model import REAL, memorised
from lethe.benchmarks.base import EvaluationResult
from lethe.benchmarks.tofu.eval_set import TofuEvalSet, build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.loading import TofuRows, load_rows
from lethe.config.benchmark import TofuBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Template
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import score
from lethe.evaluation.membership import gradient_norms
from lethe.models.forward import scored_logits
from lethe.models.loading import load_model, load_tokenizer
from lethe.models.memory import peak_mb, reset_peak
from lethe.study.model_sources import plain_folder

ROOT = Path(__file__).resolve().parents[1]
LEARNT = 20  # rows of each split that the real model learns by heart, or as many as are measured


def main() -> None:
    """Print one line per model, or per number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--data", type=Path, default=ROOT / "tests" / "golden" / "tiny_tofu", help="a folder with data/ and models"
    )
    parser.add_argument("--model", default="full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--repeated", action="store_true", help="also a loop with a forward per family of metrics")
    parser.add_argument("--real", nargs="?", const=REAL, metavar="MODEL", help="a real model in place of the small one")
    parser.add_argument("--rows", type=int, default=10, help="of each split, for the real model")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--vocabulary", type=int, default=2**17)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        memory(options.vocabulary)
        return
    if options.real:
        real(plain_folder(options.real, "--real"), options.data, options.rows, options.repeats)
        return
    if not (options.data / options.model).is_dir():
        sys.exit(f"no model at {options.data / options.model}: name a folder with --data")
    template = Template(load_tokenizer(options.data / options.model))
    benchmark = load_rows(TofuBenchmark(source=str(options.data / "data")))
    evals = build_eval_set(benchmark, template, Evaluation())
    start = load_model(options.data / options.model)
    evaluate(start, evals, Evaluation(max_rows=2), None)  # imports, first-use allocations
    print(f"{len(evals.pairs)} sequences, {len(evals.prompts)} answers, {options.threads} thread(s)")
    columns = f"{'model':<20} {'score':>6} {'generate':>8} {'tokens':>6} {'evaluate':>8} {'plain':>6} {'ratio':>6}"
    print(f"{columns}   CPU seconds, best of {options.repeats}")
    for name, model in (
        ("as trained", start),
        ("endless", endless(load_model(options.data / options.model), template.eos)),
        ("unlearned, 50 steps", unlearn(load_model(options.data / options.model), benchmark, template)),
    ):
        report(name, model.eval(), evals, options.repeats, options.repeated)
    own = [evals.pairs[i] for i in evals.splits["forget"].answer]
    seconds, _ = best(1, lambda: gradient_norms(start, own))
    print(
        f"gradient norms (evaluation.gradnorm) of {len(own)} rows: {seconds:.2f} s more, and as much for holdout rows"
    )


def real(folder: Path, data: Path, rows: int, repeats: int) -> None:
    """Print one line for each of the two states of the real model."""
    template, config = Template(load_tokenizer(folder)), Evaluation(max_rows=rows)
    benchmark = load_rows(TofuBenchmark(source=str(data)))
    evals = build_eval_set(benchmark, template, config)
    learnt = build_eval_set(benchmark, template, Evaluation(max_rows=max(rows, LEARNT)))
    own = [pair for pair, is_own in zip(learnt.pairs, learnt.own, strict=True) if is_own]
    print(f"{len(evals.pairs)} sequences, {len(evals.prompts)} answers, {torch.get_num_threads()} thread(s)")
    print(f"as trained: {in_turn(memorised(folder, own, template).eval(), evals, config, repeats)}", flush=True)
    print(f"after forgetting: {in_turn(load_model(folder).eval(), evals, config, repeats)}", flush=True)


def in_turn(model: PreTrainedModel, evals: TofuEvalSet, config: Evaluation, repeats: int) -> str:
    """Return in words what both evaluations took, in turns, and how their results differ."""
    calls = {
        "evaluate": lambda: evaluate(model, evals, config, None),
        "plain": lambda: evaluate_plainly(model, evals, config),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    peaks, results = dict.fromkeys(calls, math.inf), {}
    for _ in range(repeats):
        for name, call in calls.items():
            reset_peak("cpu")
            spent, results[name] = best(1, call)
            seconds[name].append(spent)
            peaks[name] = min(peaks[name], peak_mb("cpu"))
    ratios = [plain / ours for ours, plain in zip(*seconds.values(), strict=True)]
    times = ", ".join(f"{name} {statistics.median(found):.1f} s" for name, found in seconds.items())
    return (
        f"{times}, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"peak {', '.join(f'{name} {peak:.0f} MB' for name, peak in peaks.items())}, load {os.getloadavg()[0]:.1f}; "
        f"{difference(*results.values())}"
    )


def report(name: str, model: PreTrainedModel, evals: TofuEvalSet, repeats: int, repeated: bool) -> None:
    """Time the two passes (answers from nothing: an evaluation knows how most begin), the whole evaluation and the
    plain loop in turn; compare their metrics."""
    config, template = Evaluation(), evals.template
    budget = {"pad": template.pad, "token_budget": config.token_budget}
    scoring, _ = best(repeats, lambda: score(model, evals.pairs, standardised=evals.own, **budget))
    most = {"stops": template.stops, "max_new_tokens": config.max_new_tokens}
    generating, answers = best(1, lambda: generate(model, evals.prompts, **most, **budget))
    whole, ours = best(repeats, lambda: evaluate(model, evals, config, None))
    plain, theirs = best(repeats, lambda: evaluate_plainly(model, evals, config))
    row = f"{scoring:6.2f} {generating:8.2f} {sum(map(len, answers)):6d} {whole:8.2f} {plain:6.2f} {plain / whole:6.2f}"
    print(f"{name:<20} {row}   {difference(ours, theirs)}", flush=True)
    if repeated:
        again, _ = best(1, lambda: evaluate_plainly(model, evals, config, answer_passes=5))
        print(
            f"{'':<20} a forward per family of metrics, as public frameworks do: {again:.2f} s, {again / whole:.2f} x"
        )


def difference(ours: EvaluationResult, theirs: EvaluationResult) -> str:
    """The metric that differs most, and how many generated answers do."""
    worst = max(ours.metrics, key=lambda name: abs(ours.metrics[name] - theirs.metrics[name]))
    gap = abs(ours.metrics[worst] - theirs.metrics[worst])
    other = sum(a != b for a, b in zip(ours.rows["generated"], theirs.rows["generated"], strict=True))
    return f"{len(ours.metrics)} metrics, most apart: {worst} by {gap:.1e}; {other} answers differ"


def best(repeats: int, call: Callable[[], object]) -> tuple[float, object]:
    """Fewest CPU seconds (on one thread what a core of one's own takes, whoever shares the machine), last result."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        result = call()
        times.append(time.process_time() - began)
    return min(times), result


def memory(vocabulary: int) -> None:
    """Peak of scoring and answering, in MB over the process with its model, for growing sets of rows."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    draw = torch.Generator().manual_seed(0)
    print(f"vocabulary {vocabulary}: {sum(p.nbytes for p in model.parameters()) / 2**20:.0f} MB of weights")
    for count in (100, 400, 1600):
        pairs = [Encoded(tuple(torch.randint(vocabulary, (40,), generator=draw).tolist()), 20) for _ in range(count)]
        whole = 4 * vocabulary * sum(len(p.ids) - p.prompt_length for p in pairs) / 2**20
        reset_peak("cpu")
        before = peak_mb("cpu")
        score(model, pairs, pad=0, token_budget=Evaluation().token_budget, standardised=[True] * count)
        scoring = peak_mb("cpu") - before
        reset_peak("cpu")
        before = peak_mb("cpu")
        prompts = [p.ids[:20] for p in pairs[: count // 4]]
        generate(model, prompts, stops=[], pad=0, max_new_tokens=8, token_budget=Evaluation().token_budget)
        answering = peak_mb("cpu") - before
        own = f"{count:5d} rows: scoring {scoring:6.0f} MB, answers {answering:5.0f} MB"
        print(f"{own}; all logits at once {whole:6.0f} MB", flush=True)


def endless(model: PreTrainedModel, eos: int) -> PreTrainedModel:
    """The same model, but the end of sequence never wins: its logit is always the mean logit."""
    with torch.no_grad():
        model.lm_head.weight[eos] = model.lm_head.weight.mean(0)
    return model


def unlearn(model: PreTrainedModel, benchmark: TofuRows, template: Template) -> PreTrainedModel:
    """50 steps of gradient difference: lr 3e-4, 20 forget and 20 retain rows."""
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
