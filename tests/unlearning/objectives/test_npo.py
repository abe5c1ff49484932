"""NPO's limits, as its paper states them."""

from __future__ import annotations

import math

import pytest
import torch

from lethe.config.objective import GradientAscent, Npo
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import Counts, Scored, make_loss
from tests.unlearning.objectives.cases import counts_of, micro_batch


def at_start() -> Scored:
    """A batch of a model that is the start model itself."""
    scored = micro_batch(Npo(), pairs=2)
    log_p = scored.logits.detach().log_softmax(-1).gather(1, scored.labels.unsqueeze(1)).squeeze(1)
    scored.start_log_probs = torch.zeros(4).index_add(0, scored.row, log_p)
    return scored


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_at_the_start_it_is_gradient_ascent_on_sequences(beta: float) -> None:
    scored = at_start()
    loss, _ = make_loss(Npo(gamma=0, beta=beta))(scored, counts_of(scored))
    assert math.isclose(loss.item(), 2 / beta * math.log(2), rel_tol=1e-5)
    gradient = torch.autograd.grad(loss, scored.logits)[0]
    # Gradient ascent with sums: forget_tokens := forget rows turns its token mean into the mean over sequences.
    rows = int((scored.kind == RowKind.FORGET).sum())
    ascent, _ = make_loss(GradientAscent())(scored, Counts({RowKind.FORGET: rows}, rows))
    torch.testing.assert_close(gradient, torch.autograd.grad(ascent, scored.logits)[0])


def test_it_stops_pushing_once_far_below_the_start() -> None:
    scored = at_start()
    scored.start_log_probs = scored.start_log_probs + 1000
    loss, _ = make_loss(Npo(gamma=0))(scored, counts_of(scored))
    assert loss.item() < 1e-6
    assert torch.autograd.grad(loss, scored.logits)[0].abs().max() < 1e-6


def test_a_small_beta_is_gradient_ascent_on_sequences_anywhere() -> None:
    scored = micro_batch(Npo(), 1)
    counts = counts_of(scored)
    gradient = torch.autograd.grad(make_loss(Npo(gamma=0, beta=1e-4))(scored, counts)[0], scored.logits)[0]
    sequences = Counts({RowKind.FORGET: counts.forget_rows}, counts.forget_rows)
    ascent = torch.autograd.grad(make_loss(GradientAscent())(scored, sequences)[0], scored.logits)[0]
    torch.testing.assert_close(gradient, ascent, rtol=2e-3, atol=1e-6)
