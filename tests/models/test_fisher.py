"""FILA's row weights against plain sums of squared gradients (docs/METHODS.md section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lethe.config.adapter import Fila
from lethe.data.template import Encoded
from lethe.models.adapters import target_modules, weight_of
from lethe.models.fisher import row_weights
from tests.models.small import encoded, gpt2, llama


def squared(model: torch.nn.Module, names: Sequence[str], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """The squared gradient [out, in] of the mean loss over all answer tokens of a padded batch."""
    width = max(len(row.ids) for row in rows)
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.prompt_length : len(row.ids)] = ids[i, row.prompt_length : len(row.ids)]
    model.zero_grad()
    model(input_ids=ids, labels=labels).loss.backward()
    found = {}
    for name in names:
        module = model.get_submodule(name)
        grad = module.weight.grad if weight_of(module) is module.weight else module.weight.grad.T
        found[name] = grad.square()
    model.zero_grad()
    return found


def answer_tokens(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) - row.prompt_length for row in rows)


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize(
    "options",
    [
        {"fisher": "example", "fisher_eps": 0.1},
        {"fisher": "example", "fisher_eps": 1e-3, "fisher_eps_relative": False},
        {"fisher": "batch", "fisher_batch_size": 3, "fisher_eps": 1e-5, "fisher_eps_relative": False},
    ],
    ids=["as published", "absolute eps", "as released"],
)
def test_row_weights_are_the_fisher_as_defined(options: dict[str, Any], make: Callable) -> None:
    model, config = make(), Fila(**options)
    names = target_modules(model, "all-linear")
    fisher = []
    for rows in (encoded(5), encoded(4, seed=1)):
        size = 1 if config.fisher == "example" else 3
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        shares = [1 / len(rows) if size == 1 else answer_tokens(part) / answer_tokens(rows) for part in parts]
        squares = [squared(model, names, part) for part in parts]
        fisher.append({n: sum(s * q[n] for s, q in zip(shares, squares, strict=True)) for n in names})
    result = row_weights(model, encoded(5), encoded(4, seed=1), config)
    for name in names:
        f, r = fisher[0][name], fisher[1][name]
        eps = config.fisher_eps * (r.mean() if config.fisher_eps_relative else 1)
        torch.testing.assert_close(result[name], (f / (r + eps)).sum(1).sqrt(), rtol=1e-4, atol=1e-6)


def test_retain_rows_are_as_many_as_forget_rows_and_spread() -> None:
    retain = encoded(9, seed=1)
    chosen = row_weights(llama(), encoded(5), retain, Fila(fisher_rows=2))
    named = row_weights(llama(), encoded(5)[:2], [retain[0], retain[4]], Fila())
    assert all(torch.equal(chosen[name], named[name]) for name in named)


def test_the_model_is_left_as_it_was() -> None:
    model = llama().train().requires_grad_(False)
    model.get_submodule("model.norm").requires_grad_(True)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    row_weights(model, encoded(2), encoded(2, seed=1), Fila(rank=2))
    assert model.training
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0])
        assert p.requires_grad == before[name][1]
        assert p.grad is None
