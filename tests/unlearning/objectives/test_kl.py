"""The divergence from the start model: never negative, nothing at the start, exact, small in memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from lethe.config.objective import GradDiff, Kl
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import Scored, make_loss, tokens
from lethe.unlearning.objectives.divergences import token_divergences
from tests.unlearning.objectives.cases import counts_of, micro_batch


def near_the_start(distance: float, dtype: torch.dtype = torch.float32) -> Scored:
    scored = micro_batch(Kl(), 2, vocabulary=500)
    own = scored.logits.detach()
    start = own + distance * torch.randn(own.shape, generator=torch.Generator().manual_seed(1))
    scored.start_logits = start[scored.of(RowKind.RETAIN)].to(dtype)
    scored.logits = own.to(dtype).requires_grad_()
    return scored


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_at_the_start_model(dtype: torch.dtype) -> None:
    scored = near_the_start(0, dtype)
    loss, metrics = make_loss(Kl(gamma=1e3))(scored, counts_of(scored))
    assert metrics["retain_loss"] == 0
    gradient = torch.autograd.grad(loss, scored.logits)[0]
    assert gradient[scored.of(RowKind.RETAIN)].abs().max() < 1e-3 * 1e-7


@pytest.mark.parametrize("distance", [1e-6, 1e-3, 0.1, 10, 1e4])
def test_never_negative_and_exact(distance: float) -> None:
    scored = near_the_start(distance)
    chosen = scored.of(RowKind.RETAIN)
    values = token_divergences(scored.logits, scored.labels, scored.start_logits, chosen)
    p_ref = scored.start_logits.double().softmax(-1)
    cross = cross_entropy(scored.logits[chosen].double(), p_ref, reduction="none")
    entropy = cross_entropy(scored.start_logits.double(), p_ref, reduction="none")
    assert (values <= 0).all()
    torch.testing.assert_close(-values[chosen].double(), cross - entropy, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(values[~chosen], -cross_entropy(scored.logits, scored.labels, reduction="none")[~chosen])


@pytest.mark.parametrize(("size", "part"), [(9, 1 << 20), (9, 1), (9, 28), (0, 28)])
def test_the_gradient_in_parts(size: int, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CPU_ELEMENTS", part)
    g = torch.Generator().manual_seed(0)
    logits, start = (torch.randn(size, 7, generator=g, dtype=torch.float64) for _ in range(2))
    labels, chosen = torch.randint(7, (size,), generator=g), torch.rand(size, generator=g) < 0.5
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_divergences(x, labels, start[chosen], chosen), leaf)


def test_forget_rows_are_as_in_grad_diff() -> None:
    scored = micro_batch(Kl(), 1)
    counts = counts_of(scored)
    losses = [make_loss(config)(scored, counts)[1]["forget_loss"] for config in (Kl(), GradDiff())]
    assert losses[0] == losses[1]


def test_nothing_of_the_logits_size_is_kept() -> None:
    scored = near_the_start(1)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        token_divergences(scored.logits, scored.labels, scored.start_logits, scored.of(RowKind.RETAIN))
    given = {scored.logits.data_ptr(), scored.start_logits.data_ptr()}
    assert kept
    assert all(t.numel() <= len(scored.labels) or t.data_ptr() in given for t in kept)
