"""Extraction likelihood: our way against a greedy continuation of every prefix by `transformers.generate`.

    python -m benchmarks.tdec [--sequences 8] [--batch 16] [--threads 1]

The other way is batched and has a key-value cache, too: prefixes of similar length, padded on the left. Two kinds of
text: sequences that the embedded model has memorised, and unseen ones, where most positions are mismatches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lethe.benchmarks.measurement import template_of
from lethe.benchmarks.tdec.extraction import (
    continuations,
    extraction_likelihood,
    greedy_guesses,
    memorization_accuracy,
    mismatches,
)
from lethe.benchmarks.tdec.loading import tokenised
from lethe.config.study import load_study
from lethe.models.loading import load_model
from lethe.study.preparation import prepare

TOKEN_BUDGET = 8192


def main() -> None:
    """Print one line per kind of text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16, help="prefixes that `generate` continues at once")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study = load_study("tdec")
    prepared = prepare(study.benchmark, study.model, study.prompt)
    model = load_model(prepared.start)
    model.generation_config.eos_token_id = None  # `generate` would end there
    sequences = tokenised(
        prepared.benchmark.passages, template_of(prepared.start, study.prompt), model.config.vocab_size
    )
    n = study.benchmark.ngram
    print(f"{'text':<10} {'MA':>5} {'EL':>7} {'generated':>10} {'ours':>7} {'generate':>9} {'ratio':>6}   CPU seconds")
    for name in ("forget", "unseen"):
        ids = getattr(sequences, name)[: options.sequences]
        ma = memorization_accuracy(ids, greedy_guesses(model, ids, TOKEN_BUDGET)).mean()
        ours, (found, branches) = timed(partial(likelihoods, model, ids, n))
        theirs, expected = timed(partial(brute_all, model, ids, n, options.batch))
        if found != expected:
            raise SystemExit(f"{name}: {found} is not {expected}")
        columns = f"{branches:>10} {ours:>7.2f} {theirs:>9.2f} {theirs / ours:>6.1f}"
        print(f"{name:<10} {ma:>5.3f} {np.mean(found):>7.4f} {columns}", flush=True)


def brute_all(model: PreTrainedModel, ids: Tensor, n: int, batch: int) -> list[float]:
    return [brute(model, row, n, batch) for row in ids.tolist()]


def timed(call: Callable[[], tuple | list]) -> tuple[float, tuple | list]:
    """CPU seconds and the result."""
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def likelihoods(model: PreTrainedModel, ids: np.ndarray, n: int) -> tuple[list[float], int]:
    """Each sequence's EL, and how many continuations were generated for all of them."""
    guesses = greedy_guesses(model, ids, TOKEN_BUDGET)
    wrong = mismatches(ids, guesses)
    own: list[dict[int, list[int]]] = [{} for _ in ids]
    for (s, m), whole in continuations(model, ids, guesses, wrong).items():
        own[s][m] = whole
    return [extraction_likelihood(row, own[s], n) for s, row in enumerate(ids.tolist())], len(wrong)


def brute(model: PreTrainedModel, ids: Sequence[int], n: int, batch: int) -> float:
    """EL as docs/METHODS.md section 5 defines it, from a continuation of every prefix."""
    length = len(ids)
    total = 0.0
    prefixes = range(1, length - n + 1)
    for start in range(0, len(prefixes), batch):
        for i, generated in zip(
            prefixes[start : start + batch], continued(model, ids, prefixes[start : start + batch]), strict=True
        ):
            true = {tuple(ids[at : at + n]) for at in range(i, length - n + 1)}
            grams = [tuple(generated[at : at + n]) for at in range(len(generated) - n + 1)]
            total += sum(gram in true for gram in grams) / len(grams)
    return total / len(prefixes)


def continued(model: PreTrainedModel, ids: Sequence[int], prefixes: range) -> list[list[int]]:
    """Greedy tokens behind each prefix, up to the sequence's length."""
    width = prefixes[-1]
    padded = torch.tensor([[0] * (width - i) + list(ids[:i]) for i in prefixes])
    mask = torch.tensor([[0] * (width - i) + [1] * i for i in prefixes])
    most = len(ids) - prefixes[0]
    out = model.generate(padded, attention_mask=mask, do_sample=False, max_new_tokens=most, pad_token_id=0)
    return [row[width : width + len(ids) - i] for i, row in zip(prefixes, out.tolist(), strict=True)]


if __name__ == "__main__":
    main()
