"""SimNPO in closed form: a uniform model gives every token log-probability -log V."""

from __future__ import annotations

import math

import pytest
import torch

from lethe.config.objective import GradientAscent, SimNpo
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import Counts, make_loss
from tests.unlearning.objectives.cases import counts_of, micro_batch


@pytest.mark.parametrize(("beta", "delta"), [(2.5, 0.0), (4.5, 0.0), (0.7, 3.0)])  # published: TOFU 5 %, 10 %, MUSE
def test_of_a_uniform_model_whatever_the_lengths(beta: float, delta: float) -> None:
    config = SimNpo(gamma=0, beta=beta, delta=delta)
    scored = micro_batch(config, vocabulary=50)
    scored.logits = torch.zeros_like(scored.logits).requires_grad_()
    loss, _ = make_loss(config)(scored, counts_of(scored))
    margin = beta * math.log(50) - delta
    assert math.isclose(loss.item(), 2 / beta * math.log1p(math.exp(-margin)), rel_tol=1e-5)
    loss.backward()
    at_label = scored.logits.grad.gather(1, scored.labels.unsqueeze(1)).squeeze(1)
    for row in torch.nonzero(scored.kind == RowKind.FORGET).flatten().tolist():
        mine = at_label[scored.row == row]
        share = 2 / (1 + math.exp(margin)) / counts_of(scored).forget_rows  # 2 sigmoid(-margin), a mean over rows
        torch.testing.assert_close(mine, torch.full_like(mine, share / len(mine) * (1 - 1 / 50)))


def test_with_a_small_beta_every_row_weighs_alike() -> None:
    """Gradient ascent on the mean of the rows' token means: long answers count no more than short ones."""
    config = SimNpo(gamma=0, beta=1e-4)
    scored = micro_batch(config, 2)
    counts = counts_of(scored)
    gradient = torch.autograd.grad(make_loss(config)(scored, counts)[0], scored.logits)[0]
    ascent = torch.autograd.grad(
        make_loss(GradientAscent())(scored, Counts({RowKind.FORGET: counts.forget_rows}, 0))[0], scored.logits
    )[0]
    lengths = torch.bincount(scored.row)[scored.row].unsqueeze(1)
    torch.testing.assert_close(gradient, ascent / lengths, rtol=2e-3, atol=1e-6)
