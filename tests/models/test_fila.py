"""The starts of PiSSA and FILA (docs/METHODS.md section 3), and their cache."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lethe.config.adapter import Fila, Pissa
from lethe.models import fila
from tests.models.small import llama


def layer(seed: int = 0, shape: tuple[int, int] = (24, 16)) -> tuple[Tensor, Tensor]:
    """A weight [out, in] and row weights that spread over two decades."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g), 10 ** (2 * torch.rand(shape[0], generator=g) - 1)


def product(weight: Tensor, w: Tensor, rank: int) -> Tensor:
    """S B0 A0, in float64."""
    a, b = fila._start_pair(weight, w, rank)
    return b.double() @ a.double()


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
@pytest.mark.parametrize("rank", [1, 5, 16])
def test_the_objective_is_the_tail_energy(shape: tuple[int, int], rank: int) -> None:
    weight, w = layer(shape=shape)
    left = w.double().unsqueeze(1) * (weight.double() - product(weight, w, rank))
    s, _ = fila.directions(weight, w)
    torch.testing.assert_close(left.square().sum(), s[rank:].square().sum(), rtol=1e-5, atol=1e-9)


def test_the_factors_are_those_of_the_paper() -> None:
    weight, w = layer()
    config = Fila(rank=6, alpha_over_rank=2.5)
    u, s, vt = torch.linalg.svd(w.double().unsqueeze(1) * weight.double(), full_matrices=False)
    u, s, vt = u[:, :6], s[:6], vt[:6]
    a, b = fila._start_pair(weight, w)
    start = fila.truncated({"x.A": a, "x.B": b}, config)["x"]
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
    a, b = fila._start_pair(weight, w)
    assert torch.isfinite(a).all()
    assert torch.isfinite(b).all()
    torch.testing.assert_close(product(weight, w, 16), weight.double(), rtol=1e-4, atol=1e-4)
    kept = w > 0
    rank = min(5, int(kept.sum()))
    alone = product(weight[kept], w[kept], rank)
    torch.testing.assert_close(product(weight, w, rank)[kept], alone, rtol=1e-3, atol=1e-4)


def test_a_weight_of_low_rank_stays_finite() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 3, generator=g) @ torch.randn(3, 16, generator=g)
    for matrix in (weight, torch.zeros(24, 16)):
        a, b = fila._start_pair(matrix, layer()[1])
        assert torch.isfinite(a).all()
        assert torch.isfinite(b).all()
        torch.testing.assert_close(b @ a, matrix, rtol=1e-4, atol=1e-4)


def test_large_layers_in_fp32_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, w = layer()
    exact = product(weight, w, 5)
    monkeypatch.setattr(fila, "EXACT_ELEMENTS", 0)
    assert fila.directions(weight, w)[0].dtype == torch.float32
    torch.testing.assert_close(product(weight, w, 5), exact, rtol=1e-4, atol=1e-4)


def test_oversampling_keeps_the_energy_that_a_plain_sketch_loses() -> None:
    """A flat spectrum, the hard case: a sketch of 4, as released, misses a sixth of the energy of the best 4."""
    weight, w = torch.randn(300, 200, generator=torch.Generator().manual_seed(0)), torch.ones(300)
    best = fila.directions(weight, w)[0][:4].square().sum().item()

    def share(right: Tensor) -> float:
        return (weight @ right).square().sum().item() / best

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = share(torch.svd_lowrank(weight, q=4)[2])
    state = torch.get_rng_state()
    s, vt = fila.directions(weight, w, 4)
    assert 0.78 < plain < 0.9
    assert 0.998 < share(vt.T) <= 1 + 1e-5
    assert torch.equal(vt, fila.directions(weight, w, 4)[1])
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(vt @ vt.T, torch.eye(4), rtol=0, atol=1e-5)
    assert (s[:-1] >= s[1:]).all()


def test_an_oversampled_start_of_small_layers_is_the_exact_one() -> None:
    exact, sketched = (
        fila.start_factors(llama(), Pissa(rank=8, svd=svd), None, 16) for svd in ("exact", "oversampled")
    )
    for name in exact:
        torch.testing.assert_close(sketched[name], exact[name])
    assert {fila.sketched_rank(Pissa(rank=rank, svd="oversampled")) for rank in (4, 16, 64)} == {64}
    assert fila.sketched_rank(Pissa(rank=65, svd="oversampled")) == 128


@pytest.mark.parametrize("svd", ["exact", "oversampled"])
def test_the_cache_holds_the_largest_rank_and_smaller_ones_are_truncations(svd: str) -> None:
    small, large = (fila.start_factors(llama(), Pissa(rank=rank, svd=svd), None, rank) for rank in (4, 12))
    for name, factor in large.items():
        ours = factor[:4] if name.endswith(".A") else factor[:, :4]
        assert torch.equal(small[name], ours), "the same to the bit in every study"
    layers = [m for name, m in llama().named_modules() if isinstance(m, nn.Linear) and name != "lm_head"]
    assert sum(t.untyped_storage().nbytes() for t in large.values()) == sum(
        4 * 12 * (m.in_features + m.out_features) for m in layers
    )


def test_one_computes_while_others_wait(tmp_path: Path) -> None:
    """Locks belong to open files, so threads stand for the processes of two groups."""
    calls, found = [], []

    def compute() -> dict[str, Tensor]:
        calls.append(1)
        time.sleep(0.2)
        return {"x": torch.arange(3.0)}

    def group() -> None:
        found.append(fila.cached(tmp_path / "new", "key", compute)["x"])

    threads = [threading.Thread(target=group) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert all(torch.equal(x, torch.arange(3.0)) for x in found)
    assert len(found) == 3
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".key.lock", "key.safetensors"]


def test_the_keys_name_what_determines_the_factors() -> None:
    base = Fila(rank=4)
    key = fila.factors_key("model", "data", base, 32)
    assert key == fila.factors_key("model", "data", Fila(rank=32, alpha_over_rank=1), 32)
    others = [
        fila.factors_key("other", "data", base, 32),
        fila.factors_key("model", "other", base, 32),
        fila.factors_key("model", "data", base, 64),
        *(
            fila.factors_key("model", "data", Fila(rank=4, **option), 32)
            for option in (
                {"fisher": "batch"},
                {"fisher": "batch", "fisher_batch_size": 3},
                {"fisher_rows": 41},
                {"fisher_rows": None},
                {"fisher_eps": 0.2},
                {"fisher_eps_relative": False},
                {"targets": "q_proj"},
                {"svd": "oversampled"},
            )
        ),
        fila.factors_key("model", "data", Fila(rank=65, svd="oversampled"), 65),
        fila.factors_key("model", "data", Pissa(rank=4), 32),
    ]
    assert len({key, *others}) == 1 + len(others)
    pissa = fila.factors_key("model", "data", Pissa(rank=4), 8)
    assert pissa == fila.factors_key("model", "other data", Pissa(rank=8), 8)
    sketched = fila.fisher_key("model", "data", Fila(svd="oversampled"))
    assert sketched == fila.fisher_key("model", "data", base), "another decomposition takes the same Fisher"
