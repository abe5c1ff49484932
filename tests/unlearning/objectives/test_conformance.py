"""What every objective promises (lethe.unlearning.objectives.base), checked for each of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lethe.config.objective import AnyObjective, Method, Objective, WithRetain
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import LOSSES, Counts, Scored, make_loss
from tests.unlearning.objectives.cases import CONFIGS, MORE, counts_of, expected, micro_batch, read, subset

each = pytest.mark.parametrize("config", CONFIGS + MORE, ids=lambda c: c.digest()[:4] + c.name)


def has_retain(config: AnyObjective) -> bool:
    return isinstance(config, WithRetain) and config.retain != "none"


def gradient(config: AnyObjective, scored: Scored, counts: Counts) -> tuple[Tensor, Tensor]:
    loss, _ = make_loss(config)(scored, counts)
    return loss.detach(), gradient_of(loss, config, scored)


def gradient_of(loss: Tensor, config: AnyObjective, scored: Scored) -> Tensor:
    """The gradient on all that the objective reads, flat."""
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, read(config, scored))])


def test_every_configuration_has_its_loss_and_a_case_here() -> None:
    models = {model for model in Objective.registered.values() if not issubclass(model, Method)}
    assert models == set(LOSSES.all())
    assert models == {type(config) for config in CONFIGS + MORE}


@each
def test_configuration_and_loss_agree_on_the_rows_that_are_trained_on(config: AnyObjective) -> None:
    kinds = make_loss(config).trains_on
    assert (RowKind.RETAIN in kinds) == has_retain(config)
    assert (RowKind.REFUSAL in kinds) == (config.needs_refusals or config.needs_alternatives)
    assert set(make_loss(config).start_logits_of) <= set(kinds)


@each
def test_equals_a_float64_reference(config: AnyObjective) -> None:
    for seed in range(3):
        scored = micro_batch(config, seed)
        loss, grad = gradient(config, scored, counts_of(scored))
        leaf, states = (given.detach().double().requires_grad_() for given in (scored.logits, scored.states))
        wide = dataclasses.replace(scored, logits=leaf, states=states)
        truth = expected(config, wide, leaf)
        torch.testing.assert_close(loss, truth.detach().float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grad, gradient_of(truth, config, wide).float(), rtol=1e-4, atol=1e-7)


@each
def test_shares_of_a_split_step_add_up(config: AnyObjective) -> None:
    whole = micro_batch(config, 3)
    counts = counts_of(whole)
    loss, grad = gradient(config, whole, counts)
    first = torch.minimum(whole.row, whole.partner[whole.row]) < 2  # partners stay in one micro-batch
    shares = [make_loss(config)(subset(config, whole, keep), counts) for keep in (first, ~first)]
    total = shares[0][0] + shares[1][0]
    torch.testing.assert_close(total.detach(), loss)
    torch.testing.assert_close(gradient_of(total, config, whole), grad)
    _, metrics = make_loss(config)(whole, counts)
    for name, value in metrics.items():
        torch.testing.assert_close(shares[0][1][name] + shares[1][1][name], value)


@each
def test_metrics_are_the_unscaled_terms(config: AnyObjective) -> None:
    scored = micro_batch(config, 1)
    loss, metrics = make_loss(config)(scored, counts_of(scored))
    assert not any(value.requires_grad for value in metrics.values())
    assert set(metrics) == {"forget_loss"} | ({"retain_loss"} if has_retain(config) else set())
    retain = config.gamma * metrics["retain_loss"] if has_retain(config) else 0
    torch.testing.assert_close(metrics["forget_loss"] + retain, loss.detach())


@each
def test_order_of_positions_and_rows_without_any_do_not_matter(config: AnyObjective) -> None:
    scored = micro_batch(config, 2)
    counts = counts_of(scored)
    loss, grad = gradient(config, scored, counts)
    order = torch.randperm(scored.row.numel(), generator=torch.Generator().manual_seed(0))
    moved = subset(config, scored, order)
    moved.row = moved.row + 1  # a new first row, and a new last one, both without a scored position
    empty = torch.tensor([RowKind.FORGET])
    moved.kind = torch.cat([empty, scored.kind, empty])
    moved.partner = torch.cat([torch.tensor([0]), scored.partner + 1, torch.tensor([len(moved.kind) - 1])])
    moved.start_log_probs = torch.cat([torch.tensor([-3.0]), scored.start_log_probs, torch.tensor([0.0])])
    again, _ = make_loss(config)(moved, counts)
    torch.testing.assert_close(again.detach(), loss)
    torch.testing.assert_close(gradient_of(again, config, scored), grad)


@each
@pytest.mark.parametrize("rows", [0, 3])
def test_an_empty_micro_batch_is_zero_and_goes_backward(config: AnyObjective, rows: int) -> None:
    logits = torch.zeros(0, 11, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    kind, partner = torch.full((rows,), RowKind.FORGET), torch.arange(rows)
    states = torch.zeros(0, 5, requires_grad=True)
    scored = Scored(
        logits, nothing, nothing, nothing, kind, partner, torch.zeros(rows), torch.zeros(0, 11), states, states.detach()
    )
    for counts in (Counts(dict.fromkeys(RowKind, 7), 2), Counts(dict.fromkeys(RowKind, 0), 0)):
        loss, metrics = make_loss(config)(scored, counts)
        assert loss.item() == 0
        assert all(value.item() == 0 for value in metrics.values())
        loss.backward()
        assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in read(config, scored))


@each
@pytest.mark.parametrize("retain", [False, True])
def test_one_sided_micro_batches_are_finite(config: AnyObjective, retain: bool) -> None:
    scored = micro_batch(config, 4)
    if retain and not scored.of(RowKind.RETAIN).any():
        pytest.skip("it trains on no retain rows")
    part = subset(config, scored, scored.of(RowKind.RETAIN) == retain)
    part.logits, part.states = part.logits.detach().requires_grad_(), part.states.detach().requires_grad_()
    loss, grad = gradient(config, part, counts_of(part))
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()
    assert grad.abs().sum() > 0


@each
def test_bf16_logits_are_scored_in_fp32(config: AnyObjective) -> None:
    narrow = micro_batch(config, 5, dtype=torch.bfloat16)
    counts = counts_of(narrow)
    loss, grad = gradient(config, narrow, counts)
    wide = dataclasses.replace(
        narrow,
        logits=narrow.logits.detach().float().requires_grad_(),
        start_logits=narrow.start_logits.float(),
        states=narrow.states.detach().float().requires_grad_(),
        start_states=narrow.start_states.float(),
    )
    wide_loss, wide_grad = gradient(config, wide, counts)
    assert loss.dtype == torch.float32
    assert grad.dtype == torch.bfloat16
    assert torch.equal(loss, wide_loss)
    assert torch.equal(grad, wide_grad.bfloat16())


@each
def test_repeats_bit_for_bit(config: AnyObjective) -> None:
    results = [gradient(config, micro_batch(config, 6), counts_of(micro_batch(config, 6))) for _ in range(2)]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
