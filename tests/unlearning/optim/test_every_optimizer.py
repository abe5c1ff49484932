"""What every optimizer has to do, whatever its formula; and Lion, SGD and MeZO against theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lethe.config.optimizer import AdamW, AdamW8bit, Optimizer, Sgd
from lethe.config.optimizer import Lion as LionConfig
from lethe.config.optimizer import Mezo as MezoConfig
from lethe.config.run import Recipe
from lethe.errors import UserError
from lethe.models.packages import check_packages
from lethe.unlearning.optim import OPTIMIZERS, RefreshesHessian, make_optimizer, pieces
from lethe.unlearning.optim.mezo import Mezo

START = [1.0, -2.0, 0.5, 0.0]
GRADIENTS = [[0.1, -0.02, 0.0, 1e-4], [-2.0, 0.04, -0.003, -2e-4], [0.5, 0.0, 0.002, 3e-4]]


def stepped(config: Optimizer) -> tuple[Tensor, torch.optim.Optimizer]:
    """Three steps in float64."""
    p = torch.tensor(START, dtype=torch.float64).requires_grad_()
    optimizer = make_optimizer(config, [p])
    for gradient in GRADIENTS:
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return p, optimizer


@pytest.mark.parametrize("piece", [3, 1 << 17])
def test_lions_first_steps_are_those_by_hand(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """b1 .9, b2 .99, lr .01, wd .1: p = .999 p - .01 sign(.9 m + .1 g). After the first step m is .01 g, so that the
    second sign is that of .009 g1 + .1 g2; the third that of .00891 g1 + .009 g2 + .1 g3."""
    monkeypatch.setattr(pieces, "CPU_PIECE", piece)
    p, optimizer = stepped(LionConfig(learning_rate=0.01, weight_decay=0.1))
    signs = [[1, -1, 0, 1], [-1, 1, -1, -1], [1, 1, 1, 1]]
    truth = torch.tensor(START, dtype=torch.float64)
    for sign in signs:
        truth = 0.999 * truth - 0.01 * torch.tensor(sign, dtype=torch.float64)
    torch.testing.assert_close(p.detach(), truth, rtol=0, atol=1e-15)
    m = 0.01 * sum(0.99 ** (2 - i) * torch.tensor(g, dtype=torch.float64) for i, g in enumerate(GRADIENTS))
    torch.testing.assert_close(optimizer.state[p]["m"], m)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0}, {"nesterov": True}], ids=str)
def test_sgd_is_gradient_descent_with_momentum(settings: dict[str, Any]) -> None:
    """The sum is v = mu v + g + wd p; p -= lr v, or with nesterov p -= lr (g + wd p + mu v)."""
    config = Sgd(learning_rate=0.1, weight_decay=0.2, **settings)
    p, _ = stepped(config)
    truth, v = torch.tensor(START, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for gradient in GRADIENTS:
        g = torch.tensor(gradient, dtype=torch.float64) + 0.2 * truth
        v = config.momentum * v + g
        truth = truth - 0.1 * (g + config.momentum * v if config.nesterov else v)
    torch.testing.assert_close(p.detach(), truth)


def test_mezo_steps_along_its_directions_by_their_slopes_and_leaves_no_trace_of_them() -> None:
    """Of a quadratic p^2 / 2 the slope along z is p z, exactly: p = (1 - lr wd) p - lr mean((p z) z)."""
    p = torch.tensor(START, dtype=torch.float64).requires_grad_()
    q = torch.tensor([3.0], dtype=torch.float64).requires_grad_()
    optimizer = make_optimizer(MezoConfig(learning_rate=0.1, weight_decay=0.2, samples=3, eps=0.01), [p, q])
    assert isinstance(optimizer, Mezo)
    directions = []
    for step in (1, 2):
        optimizer.key = (7, step)
        z = [torch.cat([optimizer.direction(w, n, i) for i, w in enumerate((p, q))]) for n in range(3)]
        directions += z
        where = torch.cat([p, q]).detach()
        slopes = optimizer.step(lambda: float(torch.cat([p, q]).detach().square().sum()) / 2)
        assert slopes == pytest.approx([float(where @ d) for d in z])
        expected = 0.98 * where - 0.1 * sum((where @ d) * d for d in z) / 3
        torch.testing.assert_close(torch.cat([p, q]).detach(), expected)
    assert len({float(d[0]) for d in directions}) == 6, "another direction for every step and sample"
    assert not torch.equal(directions[0][:1], directions[0][4:]), "and for every parameter"
    assert not optimizer.state
    assert p.grad is None
    before = p.detach().clone()
    assert optimizer.step() is None
    assert torch.equal(p.detach(), before), "without a loss it does nothing"


def test_every_configuration_has_its_optimizer() -> None:
    assert set(OPTIMIZERS.all()) == set(Optimizer.registered.values())


@pytest.mark.parametrize("model", Optimizer.registered.values(), ids=lambda model: model.__name__)
def test_every_optimizer_lowers_a_loss_refreshes_if_it_says_so_and_keeps_as_many_tensors(
    model: type[Optimizer],
) -> None:
    config = model(learning_rate=0.01, weight_decay=0.0)
    pytest.importorskip(config.package or "torch")
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = make_optimizer(config, [weight])
    if config.hessian_refresh:
        assert isinstance(optimizer, RefreshesHessian)
        weight.grad = weight.detach().clone()
        with optimizer.refresh(scale=1.0):
            optimizer.step()
        assert weight.tolist() == [1.0, -2.0], "a refresh moves no weight"
    for _ in range(5):
        weight.grad = weight.detach().clone()
        optimizer.step(lambda: float(weight.detach().square().sum()) / 2)
    assert float(weight.detach().norm()) < 5**0.5
    tensors = [v for v in optimizer.state[weight].values() if torch.is_tensor(v) and v.shape == weight.shape]
    assert len(tensors) == config.state_tensors or config.package
    assert all(value.dtype == torch.float32 for value in tensors)


def test_adamw_in_8_bits_follows_adamw_in_half_the_bytes_of_one_moment() -> None:
    pytest.importorskip("bitsandbytes")
    g = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(64, 256, generator=g) for _ in range(2))
    weights = [start.clone().requires_grad_() for _ in range(2)]
    plain, small = (
        make_optimizer(m(learning_rate=1e-3, weight_decay=0.1), [w])
        for m, w in zip((AdamW, AdamW8bit), weights, strict=True)
    )
    for _ in range(10):
        noise = torch.randn(64, 256, generator=g)
        for weight, optimizer in zip(weights, (plain, small), strict=True):
            weight.grad = gradient + 0.3 * noise
            optimizer.step()
    one, other = (w.detach() - start for w in weights)
    assert float((one - other).norm() / one.norm()) < 0.02
    held = [v for name, v in small.state[weights[1]].items() if name.startswith(("state", "absmax"))]
    assert sum(v.nbytes for v in held) == AdamW8bit().state_tensors * start.nbytes


def test_a_missing_package_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [Recipe(), Recipe(optimizer=AdamW8bit())]
    monkeypatch.setattr("lethe.models.packages.find_spec", lambda _: None)
    check_packages(recipes[:1])
    with pytest.raises(
        UserError, match=r"adamw8bit needs the package bitsandbytes.*: pip install 'lethe\[quantised\]'"
    ):
        check_packages(recipes)
