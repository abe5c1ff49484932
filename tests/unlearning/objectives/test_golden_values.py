"""Objectives against `golden/objectives.json`: what a public framework and the papers' formulas give in float64."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lethe.config.objective import AnyObjective, Dpo, GradDiff, GradientAscent, Kl, Npo, SimNpo
from lethe.data.batches import RowKind
from lethe.models.loading import load_model
from lethe.unlearning.objectives import Counts, Scored, make_loss

CASES: dict[str, tuple[AnyObjective, str]] = {
    "GradAscent": (GradientAscent(), "global_token_mean"),
    "GradDiff": (GradDiff(gamma=1.0), "global_token_mean"),
    "KL": (Kl(gamma=1.0), "answer_global_token_mean"),
    "NPO": (Npo(gamma=1.0, beta=0.1), "retain_global_token_mean"),
    "DPO": (Dpo(gamma=1.0, beta=0.1), "factor_2_over_beta"),
    "SimNPO": (SimNpo(gamma=1.0, beta=4.5, delta=0.0), "retain_global_token_mean"),
}
SOURCES = {RowKind.FORGET: "forget", RowKind.REFUSAL: "idk", RowKind.RETAIN: "retain"}
PERTURBATION = {"a": 0.0, "b": 0.02, "c": 0.6}  # of each weight tensor, times sin of the index
# Of float32 arithmetic: gradient norm relative, entries and projection as shares of the norm (golden README).
TOLERANCES = {"a": (1e-3, 1e-4, 4e-3), "b": (1e-3, 1e-4, 4e-3), "c": (2e-5, 1e-6, 4e-5)}


@dataclass(frozen=True)
class Golden:
    """The golden file, and the model's weights in its states."""

    values: dict[str, Any]
    folder: Path

    def model(self, state: str) -> PreTrainedModel:
        model = load_model(self.folder)
        with torch.no_grad():
            for parameter in model.parameters():
                index = torch.arange(parameter.numel(), dtype=torch.float64).view_as(parameter)
                parameter.copy_(parameter.double() * (1 + PERTURBATION[state] * torch.sin(index)))
        return model


@pytest.fixture(scope="module")
def values(golden: Path) -> Golden:
    return Golden(json.loads((golden / "objectives.json").read_text()), golden / "tiny_tofu" / "full")


def score(model: PreTrainedModel, values: Golden, kinds: tuple[RowKind, ...]) -> tuple[Scored, Counts]:
    """The batch's scored positions, and its token counts; `start_log_probs` are zero."""
    logits, labels, rows, row_kinds, tokens = [], [], [], [], {}
    for kind in kinds:
        batch = {name: torch.tensor(given) for name, given in values.values["tokens"][SOURCES[kind]].items()}
        every = model(input_ids=batch["input_ids"], attention_mask=(batch["input_ids"] != 0).long()).logits[:, :-1]
        wanted, position = batch["input_ids"][:, 1:], torch.arange(1, batch["input_ids"].shape[1])
        at = (position >= batch["answer_start"][:, None]) & (position < batch["length"][:, None])
        logits.append(every[at])
        labels.append(wanted[at])
        rows.append(at.nonzero()[:, 0] + len(row_kinds))
        row_kinds += [int(kind)] * len(at)
        tokens[kind] = int(at.sum())
    partner = torch.arange(len(row_kinds))
    if RowKind.REFUSAL in kinds and RowKind.FORGET in kinds:
        half = partner[:8].roll(4)
        partner = torch.cat([half, partner[8:]])
    scored = Scored(
        torch.cat(logits),
        torch.cat(labels),
        torch.cat(rows),
        torch.tensor(row_kinds),
        partner,
        torch.zeros(len(row_kinds)),
    )
    return scored, Counts(tokens, forget_rows=4)


def with_start_log_probs(scored: Scored, start: Scored) -> None:
    log_p = torch.log_softmax(start.logits, 1).gather(1, start.labels[:, None])[:, 0].detach()
    scored.start_log_probs = torch.zeros_like(start.start_log_probs).index_add(0, start.row, log_p)
    scored.start_logits = start.logits[start.of(RowKind.RETAIN)].detach()


def projection(gradients: list[Tensor]) -> float:
    return sum(float((g.double().flatten() * torch.sin(torch.arange(g.numel()).double())).sum()) for g in gradients)


@pytest.mark.parametrize("state", ["a", "c"])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_the_published_ones(values: Golden, name: str, state: str) -> None:
    config, variant = CASES[name]
    recorded = values.values["objectives"][name]["values"]
    if state not in recorded:
        state = "a"
    expected = recorded[state]["published"][variant]
    loss = make_loss(config)
    model = values.model(state)
    scored, counts = score(model, values, loss.trains_on)
    with_start_log_probs(scored, score(values.model("a"), values, loss.trains_on)[0])
    total, parts = loss(scored, counts)
    total.backward()
    assert float(parts["forget_loss"]) == pytest.approx(expected["forget"], rel=2e-6, abs=5e-6)
    if "retain_loss" in parts:
        assert float(parts["retain_loss"]) == pytest.approx(expected["retain"], rel=2e-6, abs=5e-6)
    gradient = expected.get("grad_total") or expected["grad_forget"]
    named = dict(model.named_parameters())
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in named.values()]
    relative, entry, along = TOLERANCES[state]
    norm = float(torch.cat([g.double().flatten() for g in gradients]).norm())
    assert norm == pytest.approx(gradient["l2_norm"], rel=relative)
    for key, value in gradient["entries"].items():
        tensor, _, index = key.rstrip("]").partition("[")
        found = float(named[tensor].grad[tuple(map(int, index.split(",")))])  # type: ignore[index]  # every tensor trains
        assert found == pytest.approx(value, abs=entry * gradient["l2_norm"]), key
    assert projection(gradients) == pytest.approx(gradient["sin_projection"], abs=along * gradient["l2_norm"])
