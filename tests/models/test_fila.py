"""FILA's mathematics (METHODS.md section 3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lethe.config.adapter import Fila
from lethe.models import fila
from lethe.models.adapters import target_modules, weight_of
from tests.models.small import encoded, gpt2, llama


def layer(seed: int = 0, shape: tuple[int, int] = (24, 16)) -> tuple[Tensor, Tensor]:
    """A weight [out, in] and row weights that spread over two decades."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g), 10 ** (2 * torch.rand(shape[0], generator=g) - 1)


def product(weight: Tensor, w: Tensor, rank: int) -> Tensor:
    """s B0 A0, in float64."""
    a, b = fila._start_pair(weight, w, rank)
    return b.double() @ a.double()


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
@pytest.mark.parametrize("rank", [1, 5, 16])
def test_the_objective_is_the_tail_energy(shape: tuple[int, int], rank: int) -> None:
    weight, w = layer(shape=shape)
    left = w.double().unsqueeze(1) * (weight.double() - product(weight, w, rank))
    _, s, _ = fila.factors(weight, w)
    torch.testing.assert_close(left.square().sum(), s[rank:].square().sum(), rtol=1e-5, atol=1e-9)


def test_the_factors_are_those_of_the_paper() -> None:
    weight, w = layer()
    config = Fila(rank=6, alpha_over_rank=2.5)
    u, s, vt = fila.factors(weight, w, 6)
    a, b = fila._start_pair(weight, w, None)
    start = fila.fila_start({"x.A": a, "x.B": b}, config)["x"]
    scaling = config.alpha_over_rank
    torch.testing.assert_close(start[0].double(), (s / scaling).sqrt().unsqueeze(1) * vt, rtol=1e-5, atol=1e-6)
    truth = u / w.double().unsqueeze(1) * (s / scaling).sqrt()
    torch.testing.assert_close(start[1].double(), truth, rtol=1e-5, atol=1e-6)


def test_the_product_does_not_depend_on_the_fishers_scale() -> None:
    weight, w = layer()
    for factor in (1e-12, 1e-3, 1e12):
        torch.testing.assert_close(product(weight, factor * w, 5), product(weight, w, 5), rtol=1e-4, atol=1e-5)


def test_uniform_fisher_gives_pissa() -> None:
    weight, _ = layer()
    module = nn.Sequential(nn.Linear(16, 24, bias=False))
    module[0].weight.data.copy_(weight)
    peft_model = get_peft_model(module, LoraConfig(r=5, lora_alpha=10, target_modules=["0"], init_lora_weights="pissa"))
    pissa = peft_model.base_model.model[0].get_delta_weight("default").detach().double()
    torch.testing.assert_close(product(weight, torch.full((24,), 3.0), 5), pissa, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(product(weight, torch.zeros(24), 5), pissa, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zeros", [1, 20])
def test_rows_without_fisher_stay_finite(zeros: int) -> None:
    """With 20 of 24 rows without Fisher, ranks above 4 are made of such rows alone."""
    weight, w = layer()
    w[torch.randperm(24, generator=torch.Generator().manual_seed(0))[:zeros]] = 0
    a, b = fila._start_pair(weight, w, None)
    assert torch.isfinite(a).all() and torch.isfinite(b).all()
    torch.testing.assert_close(product(weight, w, 16), weight.double(), rtol=1e-4, atol=1e-4)
    kept = w > 0
    rank = min(5, int(kept.sum()))
    alone = product(weight[kept], w[kept], rank)
    torch.testing.assert_close(product(weight, w, rank)[kept], alone, rtol=1e-3, atol=1e-4)


def test_a_weight_of_low_rank_stays_finite() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 3, generator=g) @ torch.randn(3, 16, generator=g)
    for matrix in (weight, torch.zeros(24, 16)):
        a, b = fila._start_pair(matrix, layer()[1], 8)
        assert torch.isfinite(a).all() and torch.isfinite(b).all()
        torch.testing.assert_close(b @ a, matrix, rtol=1e-4, atol=1e-4)


def test_large_layers_in_fp32_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, w = layer()
    exact = product(weight, w, 5)
    monkeypatch.setattr(fila, "EXACT_ELEMENTS", 0)
    assert fila.factors(weight, w)[1].dtype == torch.float32
    torch.testing.assert_close(product(weight, w, 5), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_row_weights_are_the_per_example_fisher(make: Callable) -> None:
    model, forget, retain = make(), encoded(4), encoded(3, seed=1)
    names = target_modules(model, "all-linear")
    fisher = []
    for rows in (forget, retain):
        total = {name: torch.zeros_like(weight_of(model.get_submodule(name))) for name in names}
        for row in rows:
            ids = torch.tensor([row.ids])
            labels = torch.where(torch.arange(ids.shape[1]) < row.prompt_length, -100, ids)
            model.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            for name in names:
                module = model.get_submodule(name)
                grad = module.weight.grad if weight_of(module) is module.weight else module.weight.grad.T
                total[name] += grad.square() / len(rows)
        fisher.append(total)
    model.zero_grad()
    result = fila.fisher_row_weights(model, forget, retain, eps_relative=0.1, modules=names)
    for name in names:
        f, r = fisher[0][name], fisher[1][name]
        truth = (f / (r + 0.1 * r.mean())).sum(1).sqrt()
        torch.testing.assert_close(result[name], truth.detach(), rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model = llama().train().requires_grad_(False)
    model.get_submodule("model.norm").requires_grad_(True)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    fila.start_factors(model, encoded(2), encoded(2, seed=1), Fila(rank=2))
    assert model.training
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0]) and p.requires_grad == before[name][1] and p.grad is None


def test_the_cache_computes_once_and_serves_every_rank(tmp_path: Path) -> None:
    calls = []
    config = Fila(rank=2)

    def compute() -> dict[str, Tensor]:
        calls.append(1)
        return fila.start_factors(llama(), encoded(2), encoded(2, seed=1), config)

    key = fila.fila_key("model", "data", config)
    first = fila.fila_factors(tmp_path / "new", key, compute)
    again = fila.fila_factors(tmp_path / "new", key, compute)
    assert len(calls) == 1 and all(torch.equal(first[name], again[name]) for name in first)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{key}.safetensors"]
    small, large = (fila.fila_start(first, config.model_copy(update={"rank": rank})) for rank in (2, 8))
    for name in small:
        assert torch.equal(small[name][0], large[name][0][:2]) and torch.equal(small[name][1], large[name][1][:, :2])


def test_the_cache_key_names_what_determines_the_factors() -> None:
    base = Fila(rank=4)
    key = fila.fila_key("model", "data", base)
    assert key == fila.fila_key("model", "data", Fila(rank=32, alpha_over_rank=1))
    others = [
        fila.fila_key("other", "data", base),
        fila.fila_key("model", "other", base),
        fila.fila_key("model", "data", Fila(fisher_eps=0.2)),
        fila.fila_key("model", "data", Fila(fisher_rows=41)),
        fila.fila_key("model", "data", Fila(targets="q_proj")),
        fila.fila_key("model", "data", base, 32),
    ]
    assert len({key, *others}) == 7
