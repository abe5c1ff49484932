"""The per-token numerics: bounds, closed forms, precision, memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from lethe.unlearning.objectives import tokens
from lethe.unlearning.objectives.tokens import row_sums, token_log_probs, token_terms


def random(n: int, v: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(n * v)
    logits = scale * torch.randn(n, v, generator=g)
    return logits, torch.randint(v, (n,), generator=g), torch.rand(n, generator=g) < 0.5


@pytest.mark.parametrize(("v", "part"), [(2, 1 << 20), (63, 1), (64, 150), (65, 150), (130, 300)])
def test_both_terms_and_their_gradients(v: int, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CPU_ELEMENTS", part)
    logits, labels, hinge = random(5, v)
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_terms(x, labels, hinge), leaf)
    assert torch.autograd.gradcheck(lambda x: token_log_probs(x, labels), leaf)
    values = token_terms(leaf, labels, hinge)
    torch.testing.assert_close(values[~hinge], -cross_entropy(leaf, labels, reduction="none")[~hinge])


def test_ihl_gradient_is_the_closed_form() -> None:
    logits, labels, _ = random(40, 90)
    leaf = logits.clone().requires_grad_()
    every = torch.ones(40, dtype=torch.bool)
    token_terms(leaf, labels, every).sum().backward()
    p = logits.double().softmax(1)
    at = torch.arange(40)
    p_t = p[at, labels].clone()
    top = p.topk(2, 1)
    o = torch.where(top.indices[:, 0] == labels, top.indices[:, 1], top.indices[:, 0])
    p_o = p[at, o]
    truth = p * (p_o - p_t).unsqueeze(1)
    truth[at, labels] = p_t * (p_o - p_t + 1)
    truth[at, o] = p_o * (p_o - p_t - 1)
    torch.testing.assert_close(leaf.grad.double(), truth, rtol=1e-5, atol=1e-8)
    assert leaf.grad.sum(1).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ihl_stays_in_its_bounds(dtype: torch.dtype) -> None:
    for scale in (0.0, 1e-4, 1.0, 50.0, 1e4):
        logits, labels, _ = random(64, 300, scale)
        labels[::2] = logits[::2].argmax(1)
        leaf = logits.to(dtype).requires_grad_()
        values = token_terms(leaf, labels, torch.ones(64, dtype=torch.bool))
        values.sum().backward()
        assert values.min() >= 0
        assert values.max() <= 2
        assert torch.isfinite(leaf.grad).all()


def test_ihl_takes_the_softmax_of_logits_between_0_and_1() -> None:
    """The released code takes such logits for probabilities."""
    logits = torch.tensor([[0.9, 0.1, 0.5]])
    p = logits.softmax(1)[0]
    value = token_terms(logits, torch.tensor([0]), torch.tensor([True]))
    torch.testing.assert_close(value, (1 + p[0] - p[2]).unsqueeze(0))


def test_a_tie_with_the_label_counts_as_the_runner_up() -> None:
    logits = torch.zeros(1, 130, requires_grad=True)
    value = token_terms(logits, torch.tensor([129]), torch.tensor([True]))
    value.sum().backward()
    assert value.item() == 1
    assert logits.grad[0].nonzero().flatten().tolist() == [0, 129]


def test_far_logits_keep_their_log_probability() -> None:
    """Exp underflows at -104: the log-probability must not go through it."""
    logits = torch.tensor([[0.0, -3000.0, 2000.0]], requires_grad=True)
    value = token_log_probs(logits, torch.tensor([1]))
    value.sum().backward()
    assert value.item() == -5000
    assert torch.equal(logits.grad, torch.tensor([[0.0, 1.0, -1.0]]))


def test_nothing_of_the_logits_size_is_kept() -> None:
    logits, labels, hinge = random(50, 400)
    logits.requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        token_terms(logits, labels, hinge)
    assert kept
    assert all(t.numel() <= 3 * 50 or t.data_ptr() == logits.data_ptr() for t in kept)


def test_row_sums_of_unsorted_rows() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert row_sums(values, torch.tensor([3, 0, 3, 1]), 5).tolist() == [2, 8, 0, 5, 0]
