"""From rows to gradients, for every objective: what is scored, and that batches and ranks do not matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from lethe.config.objective import AnyObjective, Dpo, GradDiff, GradientAscent, PreferenceOptimization
from lethe.data.batches import RowPair, Step, StepRows
from lethe.data.refusals import Refusals
from lethe.data.template import Encoded
from lethe.models.forward import ScoredLM
from lethe.unlearning import trainer
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.trainer import Stepper
from tests.unlearning.objectives.cases import CONFIGS
from tests.unlearning.zero_world import FORGET, RETAIN, ROWS, START_LOG_PROBS, model

each = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.digest()[:4] + c.name)
PAIRS: tuple[RowPair, ...] = ((3, 7), (0, 2), (11, 30), (5, 5), (22, 0))
STEP = Step(epoch=2, number=1, pairs=PAIRS, ends_epoch=False)


CPU = torch.device("cpu")


@dataclass
class PlainEngine:
    """As much of the engine as a step needs, in one process that plays one rank."""

    engine: nn.Module
    world: int = 1
    accumulation: int = 1
    device: torch.device = CPU

    def step(self, losses: Iterator[torch.Tensor], rate: float) -> float:
        """The gradients stay, as sums of shares."""
        for loss in losses:
            loss.backward()
        return 0.0

    def refresh(self, losses: Iterator[torch.Tensor], sampled_tokens: int) -> float:
        """As `step`."""
        return self.step(losses, 0.0)


def stepper(config: AnyObjective, engine: PlainEngine, rank: int = 0, pad: int = 0) -> Stepper:
    loss = make_loss(config)
    start = model(1).double() if loss.needs_start_logits else None
    start_log_probs = START_LOG_PROBS if loss.needs_start_log_probs else {}
    return Stepper(engine, loss, ROWS, pad, rank, 7, start_log_probs, start)  # type: ignore[arg-type]


def gradient(config: AnyObjective, net: nn.Module, world: int, accumulation: int, pad: int, data: str) -> torch.Tensor:
    net.zero_grad()
    for rank in range(world):
        run = stepper(config, PlainEngine(ScoredLM(net), world, accumulation), rank, pad)
        run.refresh(STEP, data) if data else run.step(STEP, 1.0)
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


@each
@pytest.mark.parametrize("data", ["", "forget", "retain", "both"], ids=["step", "forget", "retain", "both"])
def test_ranks_micro_batches_and_padding_do_not_matter(config: AnyObjective, data: str) -> None:
    """Of a step, and of a Hessian refresh on each kind of data."""
    net = model().double()
    whole = gradient(config, net, 1, 1, 0, data)
    assert whole.abs().max() > 1e-4
    for world, accumulation, pad in ((1, 3, 5), (3, 3, 0)):  # the latter with empty micro-batches
        torch.testing.assert_close(gradient(config, net, world, accumulation, pad, data), whole, rtol=1e-9, atol=1e-12)


@each
def test_only_answers_get_a_gradient(config: AnyObjective) -> None:
    """At the logits that predict an answer's tokens and its end; none at prompts, padding, or rows of other kinds."""
    leaves = []

    def everywhere(input_ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        leaves.append(torch.randn(*input_ids.shape, 96, generator=torch.Generator().manual_seed(1)).requires_grad_())
        return leaves[0].flatten(0, 1)[position]

    run = stepper(config, PlainEngine(everywhere))  # type: ignore[arg-type]
    run.step(STEP, 1.0)
    rows = [row for kind in run.loss.trains_on for _, row in ROWS.of(kind, PAIRS, 2)]
    assert len(leaves) == 1
    assert leaves[0].shape[0] == len(rows)
    for row, grad in zip(rows, leaves[0].grad.abs().sum(-1), strict=True):
        places = range(row.prompt_length - 1, len(row.ids) - 1)
        assert torch.nonzero(grad).flatten().tolist() == list(places)


def test_what_is_forwarded_and_counted() -> None:
    """Gradient ascent pays for no retain rows; refusals replace answers in PO and join them in DPO."""
    forget = sum(len(FORGET[f].ids) for f, _ in PAIRS)
    retain = sum(len(RETAIN[r].ids) for _, r in PAIRS)
    refusal = sum(len(ROWS.refusals.of(f, 2)[1].ids) for f, _ in PAIRS)
    trained = {
        GradientAscent(): (forget, 0),
        GradDiff(): (forget, retain),
        PreferenceOptimization(): (refusal, retain),
        Dpo(): (forget + refusal, retain),
    }
    for config, (on_forget, on_retain) in trained.items():
        run = stepper(config, PlainEngine(ScoredLM(model().double())))
        run.step(STEP, 1.0)
        assert run.tokens == on_forget + on_retain
        for data, cost in {"forget": on_forget, "retain": retain, "both": on_forget + on_retain}.items():
            before = run.tokens
            run.refresh(STEP, data)
            assert run.tokens - before == cost, (config.name, data)


def test_rows_of_different_kinds_are_sampled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of each kind with the same number and the same answer: no two positions have the same key."""
    keys: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "sampled_labels", lambda logits, k: keys.append(k) or torch.zeros_like(k))
    same = (Encoded(tuple(range(9)), 2),)
    run = stepper(Dpo(), PlainEngine(ScoredLM(model().double())))
    run.rows = StepRows(same, same, Refusals(same, np.zeros((2, 1), int)))
    run.refresh(Step(epoch=1, number=1, pairs=((0, 0),), ends_epoch=True), "both")
    assert keys[0].numel() == keys[0].unique().numel() == 21
