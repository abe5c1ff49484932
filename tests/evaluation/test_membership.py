"""Membership signals by hand, and against float64 on a small vocabulary."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from lethe.benchmarks.tofu.metrics import ReferenceScores, reference_metrics
from lethe.evaluation.likelihood import LikelihoodScores, score
from lethe.evaluation.membership import membership_metrics, min_k, signals
from tests.models.small import encoded, gpt2, llama, logits


def test_min_k_is_the_mean_of_the_lowest_two_fifths_of_an_answer() -> None:
    rows = [np.array([-1.0, -5.0, -2.0, -4.0, -3.0]), np.array([-7.0]), np.array([np.nan, -1.0]), np.empty(0)]
    assert min_k(rows).tolist() == [-4.5, -7.0, -1.0, -np.inf]


def test_signals_equal_values_by_hand() -> None:
    logp, standard = np.array([-1.0, -4.0, -2.0, -3.0, -5.0, -9.0]), np.array([0.5, -1.0, 2.0, -2.0, 0.0, -9.0])
    found = signals(LikelihoodScores([logp, logp], [], [], [np.empty(0), standard]), [1], ["aaaa"])
    assert found["loss"].tolist() == [4.0], "the end of sequence counts"
    assert found["zlib"].tolist() == [4.0 / len(zlib.compress(b"aaaa"))]
    assert found["min_k"].tolist() == [4.5], "and here it does not"
    assert found["min_k_plus_plus"].tolist() == [1.5], "nor here"


def test_members_have_low_signals() -> None:
    values = membership_metrics(
        {"loss": np.array([0.1, 0.3]), "zlib": np.array([1.0])}, {"loss": np.array([0.2, np.inf])}
    )
    assert values == {"mia_loss": 0.75}


def truth(min_k: float | None, loss: list[float]) -> ReferenceScores:
    return ReferenceScores("rows", np.array([0.5, 0.6]), np.array(loss), np.array([1.0, np.inf]), min_k)


def test_privacy_leakage_and_reference_attack_by_hand() -> None:
    oracle = truth(0.6, [1.0, 2.0])
    values = reference_metrics(truth(1.0, [1.0, 1.0]), oracle)
    assert values["privleak"] == pytest.approx(-100)
    assert values["privleak_distance"] == pytest.approx(100)
    assert values["mia_reference"] == 0.875, "losses less the oracle's: 0 and -1 against 0 and infinity"
    assert reference_metrics(truth(0.4, [1.0, 2.0]), oracle)["privleak"] == pytest.approx(50)
    assert np.isfinite(list(reference_metrics(truth(0.4, [1.0, np.inf]), truth(1.0, [1.0, np.inf])).values())).all()
    assert reference_metrics(truth(None, [1.0, 2.0]), oracle).keys() == {
        "forget",
        "forget_quality",
        "forget_quality_log10",
    }


@pytest.mark.parametrize("build", [llama, gpt2])
def test_standardised_scores_equal_those_in_float64(build: type) -> None:
    model, pairs = build(), encoded(9)
    wanted = [i % 3 != 1 for i in range(9)]
    found = score(model, pairs, pad=0, token_budget=40, standardised=wanted).standard
    for pair, row, asked in zip(pairs, found, wanted, strict=True):
        if not asked:
            assert row.size == 0
            continue
        p = logits(model, torch.tensor([pair.ids]))[0, pair.prompt_length - 1 : -1].double().softmax(-1)
        mu = (p * p.log()).sum(-1)
        sigma = ((p * p.log().square()).sum(-1) - mu.square()).sqrt()
        own = p[range(len(p)), list(pair.ids[pair.prompt_length :])].log()
        np.testing.assert_allclose(row, ((own - mu) / sigma).numpy(), rtol=1e-4, atol=1e-5)


def test_standardised_scores_of_nearly_uniform_and_one_point_distributions() -> None:
    """Sigma of a nearly flat distribution is small beside mu, and that of a certain token is 0."""
    from lethe.evaluation.likelihood import _gather

    flat = 1e-3 * torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    logp = flat.double().log_softmax(-1)[0]
    p = logp.exp()
    mu = (p * logp).sum()
    exact = (logp[7] - mu) / (p * (logp - mu).square()).sum().sqrt()
    assert _gather(flat, np.array([0]), np.array([7]), np.array([True]))[2][0] == pytest.approx(exact.item(), rel=5e-3)
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf], [0.0, 1.0, -torch.inf]])
    assert _gather(certain, np.array([0, 1]), np.array([0, 1]), np.array([True, True]))[2] == pytest.approx(
        [0.0, 0.6065], abs=1e-4
    )
