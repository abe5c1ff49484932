"""VILA's row weights against the variances of gradients that peft's own adapters get (docs/METHODS.md section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lethe.config.adapter import Fila, Vila
from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.models import fila
from lethe.models.adapters import lora_factors, lora_layer, target_modules
from lethe.models.fisher import row_weights
from lethe.models.vila import _random_adapters, adapter_row_weights
from tests.models.small import encoded, gpt2, llama, logits, tokens


def gradients(model: nn.Module, name: str, rows: Sequence[Encoded]) -> list[Tensor]:
    """The gradients of A and B of one layer, of the mean loss over all answer tokens of the rows."""
    width = max(len(row.ids) for row in rows)
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.prompt_length : len(row.ids)] = ids[i, row.prompt_length : len(row.ids)]
    loss = model(input_ids=ids, labels=labels).loss
    return list(torch.autograd.grad(loss, lora_factors(lora_layer(model, name), "default")))


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize(
    "options",
    [
        {"fisher_eps": 0.1},
        {"fisher": "batch", "fisher_batch_size": 2, "fisher_eps": 1e-9, "fisher_eps_relative": False},
    ],
    ids=["by rows", "by batches"],
)
def test_row_weights_are_variances_of_an_adapters_gradients(options: dict[str, Any], make: Callable) -> None:
    """A stock LoRA with the same entries: the variance of its gradients over rows, or over batches by their tokens."""
    config = Vila(fisher_rank=3, fisher_std=0.1, **options)
    names = target_modules(make(), "all-linear")
    with _random_adapters(make(), config) as adapters:
        assert {(a.shape[0], b.shape[1]) for a, b in adapters.values()} == {(3, 3)}
        drawn = torch.cat([factor.detach().flatten() for pair in adapters.values() for factor in pair])
        assert 0.08 < drawn.std() < 0.12
    peft_config = LoraConfig(r=3, lora_alpha=3, target_modules=names, fan_in_fan_out=make is gpt2)
    stock = get_peft_model(make(), peft_config).eval()
    with torch.no_grad():
        for name in names:
            for mine, theirs in zip(adapters[name], lora_factors(lora_layer(stock, name), "default"), strict=True):
                theirs.copy_(mine)
    result = adapter_row_weights(make(), encoded(5), encoded(6, seed=1), config)
    assert set(result) == set(names)
    size = 2 if config.fisher == "batch" else 1
    for name in (names[0], names[3], names[-1]):
        fisher = []
        for rows in (encoded(5), encoded(6, seed=1)):
            parts = [rows[i : i + size] for i in range(0, len(rows), size)]
            counts = [sum(len(row.ids) - row.prompt_length for row in part) for part in parts]
            shares = [1 / len(parts) if size == 1 else count / sum(counts) for count in counts]
            grads = [gradients(stock, name, part) for part in parts]
            a, b = (
                sum(s * (g[i] - sum(t * h[i] for t, h in zip(shares, grads, strict=True))) ** 2
                    for s, g in zip(shares, grads, strict=True))
                for i in (0, 1)
            )  # fmt: skip
            fisher.append(b @ a)
        eps = config.fisher_eps * (fisher[1].mean() if config.fisher_eps_relative else 1)
        torch.testing.assert_close(result[name], (fisher[0] / (fisher[1] + eps)).sum(1).sqrt(), rtol=1e-3, atol=1e-6)


def test_what_all_rows_pull_at_alike_has_fisher_in_fila_and_none_in_vila() -> None:
    """The correction: the square of a mean gradient is no information about rows that differ in nothing."""
    alike, retain = encoded(1) * 4, encoded(4, seed=1)
    options = {"targets": "q_proj", "fisher_rows": 4}
    assert all(w.min() > 0 for w in row_weights(llama(), alike, retain, Fila(**options)).values())
    scale = max(w.max() for w in adapter_row_weights(llama(), encoded(4), retain, Vila(**options)).values())
    assert all(w.max() < 1e-3 * scale for w in adapter_row_weights(llama(), alike, retain, Vila(**options)).values())


def test_the_model_is_left_as_it_was_and_the_weights_repeat() -> None:
    model = llama()
    before, truth = {name: p.clone() for name, p in model.named_parameters()}, logits(model, tokens())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (adapter_row_weights(model, encoded(3), encoded(3, seed=1), Vila(rank=r)) for r in (2, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first), "whatever the trial's rank"
    assert torch.equal(logits(model, tokens()), truth)
    assert all(
        torch.equal(p, before[name]) and p.grad is None and p.requires_grad for name, p in model.named_parameters()
    )


def test_trials_of_any_rank_share_one_fisher_which_is_not_filas() -> None:
    key = fila.fisher_key("model", "data", Vila(rank=4))
    assert key == fila.fisher_key("model", "data", Vila(rank=32, alpha_over_rank=1))
    others = (Vila(fisher_rank=4), Vila(fisher_std=0.1), Vila(fisher="batch"), Fila())
    assert len({key, *(fila.fisher_key("model", "data", other) for other in others)}) == 5


@pytest.mark.parametrize("options", [{}, {"fisher": "batch", "fisher_batch_size": 4}], ids=["rows", "batches"])
def test_a_single_gradient_has_no_variance(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="takes the variance of gradients, and 1 forget and 3 retain rows"):
        adapter_row_weights(llama(), encoded(1), encoded(3), Vila(**options))
