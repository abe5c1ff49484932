"""MA and EL against brute force: every prefix through `transformers.generate`, n-grams counted as defined."""

from __future__ import annotations

import random
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lethe.benchmarks.tdec import extraction
from lethe.benchmarks.tdec.extraction import (
    continuations,
    extraction_likelihood,
    greedy_guesses,
    memorization_accuracy,
    mismatches,
)
from lethe.evaluation.kv_cache import cache_bytes
from tests.models.small import VOCABULARY, gpt2, gpt_neo, llama, partly_known, sliding

LENGTH = 24


def from_every_prefix(model: PreTrainedModel, ids: np.ndarray) -> list[dict[int, list[int]]]:
    """Greedy continuations of every sequence [S, T] to full length, with no end of sequence."""
    found: list[dict[int, list[int]]] = [{} for _ in ids]
    for i in range(1, ids.shape[1]):
        start, more = torch.tensor(ids[:, :i]), ids.shape[1] - i
        mask = torch.ones_like(start)
        out = model.generate(
            start, attention_mask=mask, do_sample=False, max_new_tokens=more, eos_token_id=-1, pad_token_id=0
        )
        for row, whole in zip(out.tolist(), found, strict=True):
            whole[i] = row
    return found


def defined(ids: list[int], whole: dict[int, list[int]], n: int, eos: int | None = None) -> float:
    """EL_n word for word as docs/METHODS.md section 5 defines it."""

    def grams(tokens: list[int]) -> list[tuple[int, ...]]:
        return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]

    total = 0.0
    for i in range(1, len(ids) - n + 1):
        generated, true = whole[i][i:], grams(ids[i:])
        if eos is not None and eos in generated:
            generated = generated[: generated.index(eos) + 1]
        got = grams(generated)
        divisor = len(true) if eos is None else len(got)
        total += sum(gram in set(true) for gram in got) / divisor if divisor else 0
    return total / (len(ids) - n)


@pytest.mark.parametrize("build", [llama, gpt2, gpt_neo, sliding])
def test_equal_to_brute_force(build: Callable[[], PreTrainedModel]) -> None:
    model = build()
    ids = np.array([partly_known(model, seed, share, LENGTH) for seed, share in enumerate((0.0, 0.6, 0.9, 1.0))])
    guesses = greedy_guesses(model, ids, token_budget=2 * LENGTH)
    wrong = mismatches(ids, guesses)
    assert {s for s, _ in wrong} == {0, 1, 2}
    branches = continuations(model, ids, guesses, wrong)
    with patch.object(extraction, "BRANCH_BYTES", 7 * cache_bytes(model, LENGTH, windows=False)):
        assert continuations(model, ids, guesses, wrong) == branches, "seven rows at a time"
    for s, whole in enumerate(from_every_prefix(model, ids)):
        row, own = ids[s].tolist(), {m: branches[s, m] for q, m in wrong if q == s}
        assert memorization_accuracy(ids, guesses)[s] == np.mean([whole[i][i] == row[i] for i in whole])
        assert own == {m: whole[m] for m in own}
        for n in (1, 3, 10):
            assert extraction_likelihood(row, own, n) == pytest.approx(defined(row, whole, n), abs=1e-12)
        for eos in (row[5], whole[3][-1], VOCABULARY):
            assert extraction_likelihood(row, own, 3, eos=eos) == pytest.approx(defined(row, whole, 3, eos), abs=1e-12)
        assert (extraction_likelihood(row, own, 3) == 1) == (s == 3)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_repeated_ngrams_count_as_often_as_they_come(n: int) -> None:
    """Few different tokens: true suffixes lose n-grams one by one, and continuations have the same one many times."""
    draw = random.Random(0)
    for _ in range(50):
        length = draw.randrange(n + 1, 16)
        ids = draw.choices(range(3), k=length)
        branches = {m: ids[:m] + draw.choices(range(3), k=length - m) for m in range(1, length) if draw.random() < 0.4}
        branches = {m: whole for m, whole in branches.items() if whole[m] != ids[m]}
        ends = (*sorted(branches), length)
        whole = {i: branches.get(next(m for m in ends if m >= i), ids) for i in range(1, length)}
        for eos in (None, 0):
            assert extraction_likelihood(ids, branches, n, eos=eos) == pytest.approx(
                defined(ids, whole, n, eos), abs=1e-12
            )


def test_the_likelihood_of_a_sequence_computed_by_hand() -> None:
    # T = 5, n = 2. From 1 and 2 the model says 7 8 8 and so on; from 3 and 4 it is right.
    ids, branches = [5, 6, 7, 8, 9], {2: [5, 6, 8, 9, 9]}
    # i = 1: 6 8 9 9 against {67, 78, 89}: one of three. i = 2: 8 9 9 against {78, 89}: one of two. i = 3: all.
    assert extraction_likelihood(ids, branches, 2) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)


def test_a_memorised_sequence_has_1_and_an_unknown_one_0() -> None:
    ids = list(range(20))
    assert extraction_likelihood(ids, {}, 10) == 1.0
    nothing = {m: ids[:m] + [99] * (20 - m) for m in range(1, 20)}
    assert extraction_likelihood(ids, nothing, 1) == 0.0


def test_no_sequences_give_no_guesses_and_no_continuations() -> None:
    model = llama()
    none = np.empty((0, LENGTH), dtype=np.int64)
    assert greedy_guesses(model, none, 100).shape == (0, LENGTH)
    assert continuations(model, none, none, []) == {}


def test_the_attention_implementation_is_put_back() -> None:
    model = llama()
    ids = np.array([partly_known(model, 0, 0.5, LENGTH)])
    guesses = greedy_guesses(model, ids, 100)
    continuations(model, ids, guesses, mismatches(ids, guesses))
    assert model.config._attn_implementation == "sdpa"
