"""WGA and SatImp in closed form: gradient ascent whose weights are powers of the token's probability."""

from __future__ import annotations

import math

import pytest
import torch

from lethe.config.objective import AnyObjective, GradDiff, SatImp, Wga
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import make_loss
from tests.unlearning.objectives.cases import counts_of, micro_batch


@pytest.mark.parametrize("config", [Wga(gamma=0.7, beta=0), SatImp(gamma=0.7, beta1=0, beta2=0)], ids=lambda c: c.name)
def test_without_exponents_it_is_gradient_difference(config: AnyObjective) -> None:
    scored = micro_batch(config, 1)
    losses = [make_loss(c)(scored, counts_of(scored))[0] for c in (config, GradDiff(gamma=0.7))]
    assert torch.equal(losses[0], losses[1])
    gradients = [torch.autograd.grad(loss, scored.logits)[0] for loss in losses]
    assert torch.equal(gradients[0], gradients[1])


def test_of_a_uniform_model_the_gradient_has_the_weight_and_not_its_derivative() -> None:
    config = SatImp(gamma=0, beta1=2, beta2=0.5)
    scored = micro_batch(config, vocabulary=50)
    scored.logits = torch.zeros_like(scored.logits).requires_grad_()
    counts = counts_of(scored)
    loss, _ = make_loss(config)(scored, counts)
    weight = (1 / 50) ** 2 * (1 - 1 / 50) ** 0.5
    assert math.isclose(loss.item(), -weight * math.log(50), rel_tol=1e-6)
    at_label = torch.autograd.grad(loss, scored.logits)[0].gather(1, scored.labels.unsqueeze(1)).squeeze(1)
    forget = scored.of(RowKind.FORGET)
    wanted = torch.full_like(at_label[forget], weight * (1 - 1 / 50) / counts.tokens[RowKind.FORGET])
    torch.testing.assert_close(at_label[forget], wanted)


def test_a_certain_token_is_left_alone_by_satimp_and_pushed_by_wga() -> None:
    """1 - p is exact where float32 cannot tell p from 1: of logits 12 apart it is 3e-4 for 50 tokens."""
    scored = micro_batch(Wga(), vocabulary=50)
    for apart in (12.0, 25.0):
        logits = torch.zeros_like(scored.logits).scatter(1, scored.labels.unsqueeze(1), apart)
        scored.logits = logits.requires_grad_()
        missing = 49 * math.exp(-apart) / (1 + 49 * math.exp(-apart))
        values = {c.name: make_loss(c)(scored, counts_of(scored))[0].item() for c in (Wga(gamma=0), SatImp(gamma=0))}
        if apart == 12:
            assert math.isclose(values["wga"], (1 - missing) * math.log1p(-missing), rel_tol=1e-3)
            assert math.isclose(
                values["satimp"], (1 - missing) ** 5 * missing**0.1 * math.log1p(-missing), rel_tol=1e-3
            )
        assert all(math.isfinite(value) and value <= 0 for value in values.values())
