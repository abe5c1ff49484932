"""Sophia against its golden vectors (docs/METHODS.md section 2), a known Hessian, and its contract."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lethe.config.optimizer import AdamW
from lethe.config.optimizer import Sophia as SophiaConfig
from lethe.unlearning.objectives.tokens import token_log_probs
from lethe.unlearning.optim import make_optimizer, pieces
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels, sampled_loss
from lethe.unlearning.optim.sophia import Sophia

START = [1.0, -2.0, 0.5, 0.0]
GRADIENTS = [
    [0.1, -0.02, 0.003, 1e-4],
    [0.05, 0.04, -0.003, -2e-4],
    [-0.2, 0.01, 0.002, 3e-4],
    [0.15, -0.03, 0.001, 1e-4],
]
SETTINGS: dict[str, Any] = {"betas": (0.9, 0.95), "weight_decay": 0.1}


def f64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def golden_run(optimizer: Sophia, p: Tensor, sampled: list[list[float]], scale: float) -> None:
    """Four steps; Hessian gradients after the second and the fourth."""
    refreshes = iter(sampled)
    for number, gradient in enumerate(GRADIENTS, 1):
        p.grad = f64(gradient)
        optimizer.step()
        if number % 2 == 0:
            p.grad = f64(next(refreshes))
            with optimizer.refresh(scale):
                optimizer.step()


def close(actual: Tensor, truth: list[float]) -> None:
    torch.testing.assert_close(actual, f64(truth), rtol=1e-10, atol=1e-12)


def test_official_golden_vector() -> None:
    """B in the denominator, as the official optimizer has it: rho bs h with an h that lacks B."""
    p = f64(START).requires_grad_()
    optimizer = Sophia([p], 0.01, clip_threshold=0.04 * 160, **SETTINGS)
    golden_run(optimizer, p, [[0.03, 0.02, -0.01, 5e-4], [0.02, -0.05, 0.004, 1e-4]], scale=1)
    close(p.detach(), [0.976045956011, -1.992011972012, 0.47802297801, -0.01998001999])
    close(optimizer.state[p]["m"], [8.34e-3, -3.18e-4, 2.557e-4, 2.809e-5])
    close(optimizer.state[p]["h"], [6.275e-5, 1.44e-4, 5.55e-6, 1.2375e-8])


def test_golden_vector_with_b_inside_h() -> None:
    """One where coordinates are not clipped, so that rho and B show."""
    p = f64(START).requires_grad_()
    optimizer = Sophia([p], 0.01, clip_threshold=0.04, **SETTINGS)
    golden_run(optimizer, p, [[0.9, 0.4, -0.05, 5e-4], [0.6, -0.5, 0.04, 1e-4]], scale=160)
    close(p.detach(), [0.9760194050851, -1.9925413118558, 0.4926563905105, -0.01998001999])
    close(optimizer.state[p]["m"], [8.34e-3, -3.18e-4, 2.557e-4, 2.809e-5])
    close(optimizer.state[p]["h"], [9.036, 3.216, 0.0318, 1.98e-6])


def test_released_golden_vector() -> None:
    """As SOUL released it: h from every step's own gradient, 5120 in it, momentum twice."""
    p = f64(START).requires_grad_()
    optimizer = Sophia([p], 0.01, clip_threshold=0.04, squared_gradient=True, **SETTINGS)
    for gradient in GRADIENTS:
        p.grad = f64(gradient)
        optimizer.step()
    close(p.detach(), [0.992280814945, -1.987308658276, 0.474057230180, -0.019980019990])
    moved, free = optimizer.win_counts().tolist()
    assert (moved, free) == (16, 9)


def test_bias_correction_undoes_the_short_average() -> None:
    """After one refresh the corrected Hessian is the estimate itself: lr g / (rho B s^2) where that is below 1."""
    p = f64(START).requires_grad_()
    optimizer = Sophia([p], 0.01, clip_threshold=0.5, betas=(0.0, 0.99), bias_correction=True)
    p.grad = f64([0.9, 0.4, -0.5, 0.3])
    with optimizer.refresh(160):
        optimizer.step()
    p.grad = g = f64(GRADIENTS[0])
    optimizer.step()
    estimate = 160 * f64([0.9, 0.4, -0.5, 0.3]).square()
    torch.testing.assert_close(p.detach(), f64(START) - 0.01 * g / (0.5 * estimate))


def test_without_a_refresh_it_is_sign_momentum() -> None:
    p = f64(START).requires_grad_()
    optimizer = Sophia([p], 0.01, bias_correction=True)
    p.grad = f64([0.3, -1e-5, 0.0, 7.0])
    optimizer.step()
    torch.testing.assert_close(p.detach(), f64(START) - 0.01 * f64([1, -1, 0, 1]))


def random_pair(**settings: Any) -> tuple[list[Tensor], Sophia]:
    g = torch.Generator().manual_seed(0)
    params = [torch.randn(n, generator=g).requires_grad_() for n in (53, 20)]
    return params, Sophia([{"params": [params[0]]}, {"params": [params[1]]}], 1e-3, **settings)


def set_gradients(params: list[Tensor], seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=g)


def test_a_refresh_leaves_parameters_and_momentum_alone() -> None:
    params, optimizer = random_pair(weight_decay=0.1)
    set_gradients(params, 1)
    optimizer.step()
    before = [(p.detach().clone(), optimizer.state[p]["m"].clone(), optimizer.state[p]["h"].clone()) for p in params]
    optimizer.win_counts()
    set_gradients(params, 2)
    with optimizer.refresh(40):
        optimizer.step()
    for p, (value, m, h) in zip(params, before, strict=True):
        assert torch.equal(p.detach(), value)
        assert torch.equal(optimizer.state[p]["m"], m)
        assert not torch.equal(optimizer.state[p]["h"], h)
    assert optimizer.win_counts().tolist() == [0, 0]


def test_one_refresh_context_is_one_refresh_however_zero_calls_step() -> None:
    """ZeRO hides all groups but one (stages 1, 2), or gives a group its shards one by one (stage 3)."""
    params, optimizer = random_pair()
    set_gradients(params, 1)
    groups = optimizer.param_groups
    with optimizer.refresh(1):
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups
        groups[1]["params"] = []
        optimizer.step()
    assert [group["refreshes"] for group in groups] == [1, 1]


def test_the_mode_ends_with_the_context_even_on_an_error() -> None:
    params, optimizer = random_pair()
    set_gradients(params, 1)
    with pytest.raises(KeyError), optimizer.refresh(1):
        raise KeyError
    before = params[0].detach().clone()
    optimizer.step()
    assert not torch.equal(params[0].detach(), before)


@pytest.mark.parametrize("piece", [7, 1 << 17])
def test_win_counts_and_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CPU_PIECE", piece)
    params, optimizer = random_pair(betas=(0.0, 0.5), clip_threshold=0.8)
    set_gradients(params, 1)
    with optimizer.refresh(2):
        optimizer.step()
    set_gradients(params, 2)
    params[0].grad[::5] = 0
    before = [p.detach().clone() for p in params]
    optimizer.step()
    ratios = [p.grad / (0.8 * optimizer.state[p]["h"]) for p in params]
    moved = sum(int((p.grad != 0).sum()) for p in params)
    inside = sum(int(((r != 0) & (r.abs() < 1)).sum()) for r in ratios)
    assert 0 < inside < moved < 73
    assert optimizer.win_counts().tolist() == [moved, inside]
    assert optimizer.win_counts().tolist() == [0, 0]
    for p, old, ratio in zip(params, before, ratios, strict=True):
        torch.testing.assert_close(p.detach(), old - 1e-3 * ratio.clamp(-1, 1))


def test_the_state_is_two_tensors_and_survives_a_round_trip() -> None:
    params, optimizer = random_pair(bias_correction=True, weight_decay=0.1)
    for seed in range(3):
        set_gradients(params, seed)
        with optimizer.refresh(9):
            optimizer.step()
        optimizer.step()
    assert all(set(state) == {"m", "h"} for state in optimizer.state.values())
    twins, other = random_pair(bias_correction=True, weight_decay=0.1)
    with torch.no_grad():
        for twin, p in zip(twins, params, strict=True):
            twin.copy_(p)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, opt in ((params, optimizer), (twins, other)):
        set_gradients(each, 9)
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))
    assert [group["refreshes"] for group in other.param_groups] == [3, 3]


def test_a_known_hessian() -> None:
    """Linear softmax: the Hessian's diagonal is mean_n x_nd^2 p_nv (1 - p_nv), whatever the labels."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(24, 3, generator=g)
    weight = torch.randn(5, 3, generator=g).requires_grad_()
    optimizer = Sophia([weight], 1e-3, betas=(0.9, 0.999), bias_correction=True)
    n = 1500
    for refresh in range(n):
        logits = x @ weight.T
        keys = sample_keys(0, refresh, torch.arange(24), torch.zeros(24, dtype=torch.int64))
        loss = sampled_loss(token_log_probs(logits, sampled_labels(logits, keys)), 24)
        weight.grad = torch.autograd.grad(loss, weight)[0]
        with optimizer.refresh(24):
            optimizer.step()
    p = (x @ weight.T).softmax(1).detach()
    truth = (p * (1 - p)).T @ x.square() / 24
    estimate = optimizer.state[weight]["h"] / (1 - 0.999**n)
    # About 1,270 effective samples, each with a relative deviation of about 1.4: 4 % per coordinate.
    assert ((estimate - truth) / truth).abs().max() < 0.15
    assert ((estimate - truth) / truth).mean().abs() < 0.03


def test_settings_reach_the_optimizer() -> None:
    p = torch.zeros(3, requires_grad=True)
    adamw = make_optimizer(AdamW(learning_rate=0.5, weight_decay=0.2), [p])
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["lr"], adamw.defaults["weight_decay"], adamw.defaults["eps"]) == (0.5, 0.2, 1e-8)
    config = SophiaConfig(learning_rate=0.5, clip_threshold=3, hessian_bias_correction=False)
    second = make_optimizer(config, [{"params": [p]}])
    assert isinstance(second, Sophia)
    chosen = [second.defaults[key] for key in ("lr", "clip_threshold", "bias_correction", "squared_gradient")]
    assert chosen == [0.5, 3, False, False]
    released = make_optimizer(SophiaConfig(hessian="squared_gradient"), [p])
    assert [released.defaults[key] for key in ("bias_correction", "squared_gradient")] == [False, True]
