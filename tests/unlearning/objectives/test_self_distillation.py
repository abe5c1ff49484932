"""UNDIAL and CE-U in closed form: cross-entropies whose gradient on the logits is p - q, q the fixed target."""

from __future__ import annotations

import math

import pytest
import torch

from lethe.config.objective import CeU, Undial
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import make_loss, tokens
from lethe.unlearning.objectives.divergences import token_cross_entropies
from tests.unlearning.objectives.cases import counts_of, micro_batch


@pytest.mark.parametrize("config", [Undial(), CeU(), CeU(skip_first=False)], ids=["undial", "ce_u", "all_tokens"])
def test_of_a_uniform_model_it_is_log_v(config: Undial | CeU) -> None:
    scored = micro_batch(config, vocabulary=50)
    scored.logits = torch.zeros_like(scored.logits).requires_grad_()
    loss, _ = make_loss(config)(scored, counts_of(scored))
    assert math.isclose(loss.item(), math.log(50), rel_tol=1e-6)


def test_undial_is_done_where_the_model_is_its_target() -> None:
    config = Undial(beta=4.0)
    scored = micro_batch(config, 2)
    forget = scored.of(RowKind.FORGET)
    target = scored.logits.detach().clone()
    target[forget] = scored.start_logits.scatter_add(
        1, scored.labels[forget].unsqueeze(1), torch.full((int(forget.sum()), 1), -4.0)
    )
    scored.logits = target.requires_grad_()
    loss, _ = make_loss(config)(scored, counts_of(scored))
    p = target[forget].detach().double().softmax(-1)
    assert math.isclose(loss.item(), -(p * p.log()).sum(-1).mean().item(), rel_tol=1e-5), "the target's entropy"
    assert torch.autograd.grad(loss, scored.logits)[0].abs().max() < 1e-7


def test_ce_u_leaves_the_first_token_of_every_answer_alone() -> None:
    scored = micro_batch(CeU(), 1)
    pushed = {}
    for config in (CeU(), CeU(skip_first=False)):
        loss, _ = make_loss(config)(scored, counts_of(scored))
        pushed[config.skip_first] = torch.autograd.grad(loss, scored.logits)[0].abs().sum(1) > 0
    forget = scored.of(RowKind.FORGET)
    assert torch.equal(pushed[False], forget)
    assert torch.equal(pushed[True], forget & (scored.place > 0))
    assert not torch.equal(pushed[True], pushed[False])


def test_ce_u_of_a_token_beyond_float32_certainty_still_shares_the_rest_among_the_others() -> None:
    """1 - p_t is 0 in float32; q is not made from it: the gradient is 1 at the true token, -1/49 at each other."""
    config = CeU(skip_first=False)
    scored = micro_batch(config, vocabulary=50)
    label = scored.labels.unsqueeze(1)
    scored.logits = torch.zeros_like(scored.logits).scatter(1, label, 80.0).requires_grad_()
    counts = counts_of(scored)
    loss, _ = make_loss(config)(scored, counts)
    forget = scored.of(RowKind.FORGET)
    found = torch.autograd.grad(loss, scored.logits)[0][forget] * counts.tokens[RowKind.FORGET]
    torch.testing.assert_close(found, torch.full_like(found, -1 / 49).scatter(1, label[forget], 1.0))
    assert math.isclose(loss.item(), 80, rel_tol=1e-6)


@pytest.mark.parametrize("own", [False, True], ids=["a_start_model", "itself"])
@pytest.mark.parametrize(("size", "part"), [(9, 1 << 20), (9, 1), (9, 28), (0, 28)])
def test_the_gradient_in_parts_is_p_less_q(size: int, part: int, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CPU_ELEMENTS", part)
    g = torch.Generator().manual_seed(0)
    logits, start = (torch.randn(size, 7, generator=g, dtype=torch.float64) for _ in range(2))
    labels, chosen = torch.randint(7, (size,), generator=g), torch.rand(size, generator=g) < 0.5
    leaf = logits.requires_grad_()
    target = None if own else start[chosen]
    values = token_cross_entropies(leaf, labels, target, chosen, math.inf if own else 2.0)
    (found,) = torch.autograd.grad(values.sum(), leaf)
    label = torch.nn.functional.one_hot(labels, 7).double()
    lowered = leaf.detach().masked_fill(label.bool(), -math.inf) if own else start - 2 * label
    q = torch.where(chosen.unsqueeze(1), lowered.softmax(-1), label)
    p = leaf.detach().softmax(-1)
    torch.testing.assert_close(values.detach(), (q * p.log()).sum(-1))
    torch.testing.assert_close(found, q - p)


def test_nothing_of_the_logits_size_is_kept_for_ce_u() -> None:
    scored = micro_batch(CeU(), 2, vocabulary=500)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        make_loss(CeU()).token_values(scored)
    assert kept
    assert all(t.numel() <= len(scored.labels) or t.data_ptr() == scored.logits.data_ptr() for t in kept)
