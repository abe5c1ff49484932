"""Sampled labels: right distribution, and the same whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from lethe.unlearning.objectives.tokens import token_log_probs
from lethe.unlearning.optim import hessian
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels, sampled_loss

MASK = (1 << 64) - 1


def keys_of(n: int, *, seed: int = 0, refresh: int = 0) -> torch.Tensor:
    return sample_keys(seed, refresh, torch.arange(n) // 7, torch.arange(n) % 7)


def splitmix(x: int) -> int:
    """The published generator, in Python's own integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_the_hash_is_splitmix64() -> None:
    assert splitmix(0) == 0xE220A8397B1DCDAF  # first output of the reference implementation for seed 0
    words = [0, 1, 12345, (1 << 63) - 1, 1 << 63, MASK]
    signed = torch.tensor([word - (1 << 64) if word >> 63 else word for word in words])
    assert [int(x) & MASK for x in hessian._mix(signed)] == [splitmix(word) for word in words]


def test_keys_tell_seed_refresh_row_and_position_apart() -> None:
    keys = [
        sample_keys(seed, refresh, torch.tensor([row]), torch.tensor([position])).item()
        for seed in range(4)
        for refresh in range(4)
        for row in range(4)
        for position in range(4)
    ]
    assert len(set(keys)) == 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_labels_follow_the_softmax(dtype: torch.dtype) -> None:
    n = 20_000
    row = torch.tensor([0.3, -1.0, 2.0, -torch.inf, 0.0, 1.1, -2.0, 0.5]).to(dtype)
    labels = sampled_labels(row.expand(n, -1), keys_of(n))
    p = row.double().softmax(0)
    counts = torch.bincount(labels, minlength=8).double()
    assert counts[3] == 0
    chosen = p > 0
    chi_square = ((counts - n * p).square() / (n * p))[chosen].sum().item()
    assert chi_square < 22.5  # 6 degrees of freedom: 0.1 % of random samples lie above


def test_neighbouring_draws_are_independent() -> None:
    n = 20_000
    logits = torch.zeros(n, 4)
    for a, b in (
        (sampled_labels(logits, keys_of(n)), sampled_labels(logits, keys_of(n, refresh=1))),
        (sampled_labels(logits, keys_of(n)), sampled_labels(logits, keys_of(n, seed=1))),
        (sampled_labels(logits, keys_of(n))[:-1], sampled_labels(logits, keys_of(n))[1:]),
    ):
        counts = torch.bincount(4 * a + b, minlength=16).double()
        expected = len(a) / 16
        assert ((counts - expected).square() / expected).sum() < 37.7  # 15 degrees of freedom, 0.1 %


def test_labels_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    logits, keys = torch.randn(60, 33, generator=g), keys_of(60)
    whole = sampled_labels(logits, keys)
    order = torch.randperm(60, generator=g)
    assert torch.equal(sampled_labels(logits[order], keys[order]), whole[order])
    halves = [sampled_labels(logits[part], keys[part]) for part in (slice(13), slice(13, None))]
    assert torch.equal(torch.cat(halves), whole)
    monkeypatch.setattr(hessian, "CPU_ELEMENTS", 100)
    assert torch.equal(sampled_labels(logits, keys), whole)


def test_a_certain_token_is_always_drawn() -> None:
    logits = torch.full((500, 10), -200.0)
    last = torch.arange(500) % 10
    logits[torch.arange(500), last] = 200
    assert torch.equal(sampled_labels(logits, keys_of(500)), last)


def test_sampled_loss_is_a_share_of_the_global_mean() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 9, generator=g, requires_grad=True)
    labels = sampled_labels(logits, keys_of(12))
    log_probs = token_log_probs(logits, labels)
    parts = sampled_loss(log_probs[:5], 12) + sampled_loss(log_probs[5:], 12)
    torch.testing.assert_close(parts, cross_entropy(logits, labels))
    empty = sampled_loss(log_probs[:0], 12)
    assert empty.item() == 0
    assert torch.autograd.grad(empty, logits)[0].abs().sum() == 0
