"""Shared teacher-forced scoring equals one sequence at a time with plain cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lethe.data.template import Encoded
from lethe.evaluation.likelihood import LOGIT_BYTES, batches, score
from tests.models.small import VOCABULARY, encoded, gpt2, llama, logits


def naive(model: torch.nn.Module, pair: Encoded) -> tuple[float, list[bool]]:
    """Mean loss and correctness of one answer, alone in its batch, with float32 logits everywhere."""
    row = logits(model, torch.tensor([pair.ids]))[0, pair.prompt_length - 1 : -1].float()
    labels = torch.tensor(pair.ids[pair.prompt_length :])
    return cross_entropy(row, labels).item(), (row.argmax(-1) == labels).tolist()


def check(model: torch.nn.Module, budget: int, rel: float = 2e-6) -> None:
    pairs = encoded(17)
    scores = score(model, pairs, pad=3, token_budget=budget)
    expected = [naive(model, pair) for pair in pairs]
    np.testing.assert_allclose(scores.nll_mean, [loss for loss, _ in expected], rtol=rel)
    assert [row.tolist() for row in scores.correct] == [correct for _, correct in expected]
    assert scores.tokens.tolist() == [len(pair.ids) - pair.prompt_length for pair in pairs]
    np.testing.assert_allclose(scores.nll_sum, scores.nll_mean * scores.tokens)
    assert scores.nll_mean.dtype == np.float64


@pytest.mark.parametrize("budget", [1, 40, 10_000])
@pytest.mark.parametrize("build", [llama, gpt2])
def test_scores_equal_those_of_one_pair_at_a_time(build: type, budget: int) -> None:
    check(build(), budget)


def test_bf16_model_has_float32_log_softmax() -> None:
    model = llama().to(torch.bfloat16)
    pairs = encoded(1)
    found = score(model, pairs, pad=0, token_budget=99).logp[0]
    raw = logits(model, torch.tensor([pairs[0].ids]))[0, pairs[0].prompt_length - 1 : -1]
    labels = torch.tensor(pairs[0].ids[pairs[0].prompt_length :])
    exact = raw.double().log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-5)


def test_a_model_with_nan_logits_is_scored() -> None:
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    scores = score(model, encoded(3), pad=0, token_budget=50)
    assert np.isnan(scores.nll_mean).all()


def test_without_pairs_there_are_no_scores() -> None:
    assert score(llama(), [], pad=0, token_budget=64).nll_mean.shape == (0,)


def test_the_head_sees_answer_positions_only() -> None:
    model, pairs, seen = llama(), encoded(6), []
    model.lm_head.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    score(model, pairs, pad=0, token_budget=10_000)
    assert seen == [(1, sum(len(p.ids) - p.prompt_length for p in pairs), VOCABULARY)]


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [3, 9, 1, 9, 4, 20, 2]
    groups = list(batches(lengths, 18))
    assert sorted(i for group in groups for i in group) == list(range(7))
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 18 for group in groups)


def test_batches_hold_a_bounded_number_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = list(batches([5] * 7, 1000, [3, 1, 1, 4, 9, 2, 1], 5))
    assert sorted(i for group in groups for i in group) == list(range(7))
    scored = [3, 1, 1, 4, 9, 2, 1]
    assert all(len(group) == 1 or sum(scored[i] for i in group) <= 5 for group in groups)
    assert len(groups) < 7
    model, pairs, seen = llama(), encoded(20), []
    monkeypatch.setitem(LOGIT_BYTES, "cpu", 4 * VOCABULARY * 10)
    model.lm_head.register_forward_hook(lambda _module, _args, output: seen.append(output.shape[1]))
    score(model, pairs, pad=0, token_budget=10_000)
    assert sum(seen) == sum(len(pair.answer) for pair in pairs)
    assert max(seen) <= 10
