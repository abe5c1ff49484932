"""Gradient norms against one plain backward pass a row; nothing of the model is changed."""

from __future__ import annotations

import pytest
import torch

from lethe.config.adapter import Lora
from lethe.evaluation.distributed import evaluating
from lethe.evaluation.membership import gradient_norms
from lethe.models.adapters import attach
from tests.models.small import disturb, encoded, gpt2, llama


def plain(model: torch.nn.Module, pair: object) -> float:
    ids = torch.tensor([pair.ids])
    labels = ids.clone()
    labels[0, : pair.prompt_length] = -100
    model.zero_grad()
    answer = len(pair.ids) - pair.prompt_length
    (model(input_ids=ids, labels=labels).loss * answer / (answer - 1)).backward()
    norms = [p.grad.norm() for p in model.parameters()]
    model.zero_grad()
    return float(sum(norms) / len(norms))


@pytest.mark.parametrize("build", [llama, gpt2, lambda: llama(tied=True)])
def test_norms_equal_those_of_a_plain_backward(build: type) -> None:
    model, pairs = build(), encoded(4)
    assert gradient_norms(model, pairs) == pytest.approx([plain(model, pair) for pair in pairs], rel=1e-5)


def test_an_adapter_counts_as_the_weights_it_adds_up_to() -> None:
    wrapped = attach(llama(), Lora(rank=2), seed=0)
    disturb(wrapped)
    flags = [p.requires_grad for p in wrapped.parameters()]
    with evaluating(wrapped):
        found = gradient_norms(wrapped, encoded(3))
    merged = wrapped.merge_and_unload().requires_grad_(True)
    assert found == pytest.approx([plain(merged, pair) for pair in encoded(3)], rel=1e-4)
    assert not all(flags)


def test_gradients_hooks_and_flags_are_restored() -> None:
    model = attach(llama(), Lora(rank=2), seed=0)
    flags = [p.requires_grad for p in model.parameters()]
    gradient_norms(model, encoded(2))
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None and not p._backward_hooks for p in model.parameters())
