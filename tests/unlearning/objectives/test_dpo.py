"""DPO against its published formula, and its limits."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from lethe.config.objective import Dpo, Npo
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import Scored, make_loss
from tests.unlearning.objectives.cases import counts_of, micro_batch

CONFIG = Dpo(gamma=0, beta=0.3)


def summed(scored: Scored) -> torch.Tensor:
    """S of every row, on the graph."""
    log_p = -cross_entropy(scored.logits, scored.labels, reduction="none")
    return torch.stack([log_p[scored.row == r].sum() for r in range(len(scored.kind))])


def test_is_twice_the_published_loss_over_beta() -> None:
    scored = micro_batch(CONFIG, 3)
    s = summed(scored)
    forget = torch.nonzero(scored.kind == RowKind.FORGET).flatten()
    refusal = scored.partner[forget]
    assert (scored.kind[refusal] == RowKind.REFUSAL).all()
    assert (scored.partner[refusal] == forget).all()
    wins, losses = s[refusal] - scored.start_log_probs[refusal], s[forget] - scored.start_log_probs[forget]
    published = -logsigmoid(CONFIG.beta * (wins - losses)).mean()
    loss, _ = make_loss(CONFIG)(scored, counts_of(scored))
    torch.testing.assert_close(loss, 2 / CONFIG.beta * published)
    gradient, truth = (torch.autograd.grad(x, scored.logits)[0] for x in (loss, 2 / CONFIG.beta * published))
    torch.testing.assert_close(gradient, truth, rtol=1e-4, atol=1e-7)


def test_at_the_start_it_pulls_up_refusals_as_hard_as_it_pushes_down_answers() -> None:
    scored = micro_batch(CONFIG, 1)
    scored.start_log_probs = summed(scored).detach()
    loss, _ = make_loss(CONFIG)(scored, counts_of(scored))
    assert math.isclose(loss.item(), 2 / CONFIG.beta * math.log(2), rel_tol=1e-5)
    signs = (scored.kind == RowKind.FORGET).float() - (scored.kind == RowKind.REFUSAL).float()
    both = (signs * summed(scored)).sum() / counts_of(scored).forget_rows
    gradient, truth = (torch.autograd.grad(x, scored.logits)[0] for x in (loss, both))
    torch.testing.assert_close(gradient, truth, rtol=1e-4, atol=1e-6)


def test_without_the_refusals_part_it_is_npo() -> None:
    """NPO is DPO that knows no preferred answer: equal where the refusals stay as likely as they were."""
    scored = micro_batch(CONFIG, 5)
    refusals = scored.kind == RowKind.REFUSAL
    scored.start_log_probs = torch.where(refusals, summed(scored).detach(), scored.start_log_probs)
    counts = counts_of(scored)
    dpo, npo = (make_loss(config)(scored, counts)[0] for config in (CONFIG, Npo(gamma=0, beta=CONFIG.beta)))
    torch.testing.assert_close(dpo, npo)
