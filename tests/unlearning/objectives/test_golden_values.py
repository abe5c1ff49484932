"""Objectives against `golden/objectives.json`: what a public framework and the papers' formulas give, in float64."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from lethe.config.objective import (
    AltPo,
    AnyObjective,
    CeU,
    Dpo,
    GradDiff,
    GradientAscent,
    Kl,
    Npo,
    Pdu,
    Rmu,
    SatImp,
    SimNpo,
    Undial,
    Wga,
)
from lethe.data.batches import RowKind, Step, StepRows
from lethe.data.template import Encoded
from lethe.models.forward import ScoredLM
from lethe.models.loading import load_model
from lethe.unlearning.objectives import Counts, Loss, Scored, make_loss
from lethe.unlearning.objectives.rmu import Rmu as RmuLoss
from lethe.unlearning.stepper import Stepper
from tests.unlearning.test_steps import PlainEngine

RELEASED = "released"
CASES: list[tuple[str, AnyObjective, str]] = [  # name and published variant in the file
    ("GradAscent", GradientAscent(), "global_token_mean"),
    ("GradDiff", GradDiff(gamma=1.0), "global_token_mean"),
    ("KL", Kl(gamma=1.0), "answer_global_token_mean"),
    ("NPO", Npo(gamma=1.0, beta=0.1), "retain_global_token_mean"),
    ("DPO", Dpo(gamma=1.0, beta=0.1), "factor_2_over_beta"),
    ("AltPO", AltPo(gamma=1.0, beta=0.1), "factor_2_over_beta"),
    ("SimNPO", SimNpo(gamma=1.0, beta=4.5, delta=0.0), "retain_global_token_mean"),
    ("WGA", Wga(gamma=1.0, beta=1.0), "global_token_mean"),
    ("SatImp", SatImp(gamma=1.0, beta1=5.0, beta2=1.0), "global_token_mean"),
    ("SatImp", SatImp(gamma=1.0), "beta2_0.1_global_token_mean"),
    ("UNDIAL", Undial(gamma=1.0), "global_token_mean"),
    ("CEU", CeU(), "skip1_global_token_mean"),
    ("CEU", CeU(skip_first=False), "skip0_global_token_mean"),
    ("RMU", Rmu(layer=2, coefficient=2.0), "per_sample_mean"),
    ("RMU", Rmu(layer=2, coefficient=2.0, reduction="token_mean"), "global_token_mean"),
    ("RMU", Rmu(layer=2, coefficient=2.0, reduction="released"), RELEASED),
    ("PDU", Pdu(), "shifted_global_token_mean"),
    ("PDU", Pdu(logits="released"), RELEASED),
]
SOURCES = {RowKind.FORGET: "forget", RowKind.REFUSAL: "idk", RowKind.RETAIN: "retain"}
PERTURBATION = {"a": 0.0, "b": 0.02, "c": 0.6}  # of each weight tensor, times sin of the index
EXACT = 1e-6  # relative; entries and projection as shares of the gradient's norm


@dataclass(frozen=True)
class Golden:
    """The golden file, and the model's weights in its states."""

    values: dict[str, Any]
    folder: Path

    def model(self, state: str) -> PreTrainedModel:
        model = in_float64(load_model(self.folder))
        with torch.no_grad():
            for parameter in model.parameters():
                index = torch.arange(parameter.numel(), dtype=torch.float64).view_as(parameter)
                parameter.mul_(1 + PERTURBATION[state] * torch.sin(index))
        return model


@pytest.fixture(scope="module")
def values(golden: Path) -> Golden:
    return Golden(json.loads((golden / "objectives.json").read_text()), golden / "tiny_tofu" / "full")


def in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in float64 throughout: the library's norms and rotary angles are float32 whatever the weights
    are."""

    def norm(module: LlamaRMSNorm, x: Tensor) -> Tensor:
        scaled: Tensor = module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)
        return scaled

    def angles(half: Tensor, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angle = position_ids[..., None].double() * half
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()

    model = model.double()
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]
    half = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = partial(norm, module)
        elif isinstance(module, LlamaRotaryEmbedding):
            module.forward = partial(angles, half)
    return model


def score(model: PreTrainedModel, values: Golden, loss: Loss, sources: dict[RowKind, str]) -> tuple[Scored, Counts]:
    """The batch's scored positions, and its token counts; `start_log_probs` are zero."""
    logits, states, labels, rows, places, row_kinds, lengths = [], [], [], [], [], [], {}
    kinds = loss.trains_on
    for kind in kinds:
        batch = {name: torch.tensor(given) for name, given in values.values["tokens"][sources[kind]].items()}
        mask = (batch["input_ids"] != 0).long()
        out = model(input_ids=batch["input_ids"], attention_mask=mask, output_hidden_states=True)
        every = out.logits[:, 1:] if kind in loss.late else out.logits[:, :-1]
        wanted, position = batch["input_ids"][:, 1:], torch.arange(1, batch["input_ids"].shape[1])
        at = (position >= batch["answer_start"][:, None]) & (position < batch["length"][:, None])
        logits.append(every[at])
        states.append(out.hidden_states[3][:, 1:][at])  # behind block 2, at the tokens themselves
        labels.append(wanted[at])
        rows.append(at.nonzero()[:, 0] + len(row_kinds))
        places.append((position - batch["answer_start"][:, None])[at])
        row_kinds += [int(kind)] * len(at)
        lengths[kind] = at.sum(1).tolist()
    partner = torch.arange(len(row_kinds))
    if RowKind.REFUSAL in kinds and RowKind.FORGET in kinds:
        half = partner[:8].roll(4)
        partner = torch.cat([half, partner[8:]])
    scored = Scored(
        torch.cat(logits),
        torch.cat(labels),
        torch.cat(rows),
        torch.cat(places),
        torch.tensor(row_kinds),
        partner,
        torch.zeros(len(row_kinds), dtype=torch.float64),
        states=torch.cat(states),
    )
    return scored, Counts(
        {kind: sum(each) for kind, each in lengths.items()},
        forget_rows=4,
        rows={kind: len(each) for kind, each in lengths.items()},
        inverse_lengths={kind: sum(1 / n for n in each) for kind, each in lengths.items()},
    )


def add_start(scored: Scored, start: Scored, loss: Loss) -> None:
    """Give the start model's log-probabilities, logits and states to `scored`."""
    log_p = torch.log_softmax(start.logits, 1).gather(1, start.labels[:, None])[:, 0].detach()
    scored.start_log_probs = torch.zeros_like(start.start_log_probs).index_add(0, start.row, log_p)
    scored.start_logits = start.logits[start.of(*loss.start_logits_of)].detach()
    assert start.states is not None
    scored.start_states = start.states[start.of(*loss.start_states_of)].detach()


def projection(gradients: list[Tensor]) -> float:
    return sum(float((g.double().flatten() * torch.sin(torch.arange(g.numel()).double())).sum()) for g in gradients)


@pytest.mark.parametrize("state", ["a", "c"])
@pytest.mark.parametrize(
    ("name", "config", "variant"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_loss_and_gradient_are_the_published_ones(
    values: Golden, name: str, config: AnyObjective, variant: str, state: str
) -> None:
    recorded = values.values["objectives"][name]["values"]
    if state not in recorded:
        state = "a"
    expected = recorded[state][RELEASED] if variant == RELEASED else recorded[state]["published"][variant]
    loss = make_loss(config)
    if isinstance(loss, RmuLoss):
        loss.direction = lambda width: torch.ones(width, dtype=torch.float64) / width**0.5  # type: ignore[method-assign]
    model = values.model(state)
    sources = SOURCES | ({RowKind.REFUSAL: "alt"} if config.needs_alternatives else {})
    scored, counts = score(model, values, loss, sources)
    add_start(scored, score(values.model("a"), values, loss, sources)[0], loss)
    total, parts = loss(scored, counts)
    total.backward()
    assert float(parts["forget_loss"]) == pytest.approx(expected["forget"], rel=EXACT, abs=0)
    if expected["retain"] is not None:
        assert float(parts["retain_loss"]) == pytest.approx(expected["retain"], rel=EXACT, abs=1e-12)
    assert_gradient(model, expected.get("grad_total") or expected["grad_forget"])
    if isinstance(config, Pdu):
        loss.after_step({"retain_loss": float(parts["retain_loss"])}, epoch=config.warmup_epochs)
        assert loss.gamma == 1.0
        loss.after_step({"retain_loss": float(parts["retain_loss"])}, epoch=config.warmup_epochs + 1)
        assert loss.gamma == pytest.approx(expected["lambda_after_one_dual_step"], rel=EXACT)


def assert_gradient(model: PreTrainedModel, expected: dict[str, Any]) -> None:
    """The gradient's norm, its projection and single entries are the golden ones."""
    named = dict(model.named_parameters())
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in named.items()}
    norm = expected["l2_norm"]
    assert float(torch.cat([g.flatten() for g in gradients.values()]).norm()) == pytest.approx(norm, rel=EXACT)
    for key, value in expected["entries"].items():
        tensor, _, index = key.rstrip("]").partition("[")
        found = float(gradients[tensor][tuple(map(int, index.split(",")))])
        assert found == pytest.approx(value, abs=EXACT * norm), key
    assert projection([*gradients.values()]) == pytest.approx(expected["sin_projection"], abs=EXACT * norm)


# Averages over prompt and padding, through a whole step: which positions there are is the batch's matter.


def step_over(
    model: PreTrainedModel, values: Golden, config: AnyObjective, micro_tokens: int | None
) -> dict[str, float]:
    """The losses of a step over the golden rows, whose gradient stays in `model`."""

    def rows(kind: str) -> list[Encoded]:
        given = values.values["tokens"][kind]
        return [
            Encoded(tuple(ids[:length]), start)
            for ids, length, start in zip(given["input_ids"], given["length"], given["answer_start"], strict=True)
        ]

    stepper = Stepper(
        PlainEngine(ScoredLM(model)),  # type: ignore[arg-type]
        make_loss(config),
        StepRows(rows("forget"), rows("retain")),
        pad=0,
        rank=0,
        seed=0,
        start=values.model("a"),
        micro_tokens=micro_tokens,
    )
    pairs = tuple((i, (i,)) for i in range(4))
    return {name: float(loss) for name, loss in stepper.step(Step(1, 1, pairs, True), 1.0)[0].items()}


@pytest.mark.parametrize("micro_tokens", [None, 100])
@pytest.mark.parametrize(
    ("name", "config"),
    [("UNDIAL", Undial(gamma=1.0, reduction="released")), ("KL", Kl(gamma=1.0, reduction="released"))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_means_over_prompt_and_padding_are_those_of_the_released_code(
    values: Golden, name: str, config: AnyObjective, micro_tokens: int | None
) -> None:
    expected = values.values["objectives"][name]["values"]["a"][RELEASED]
    model = values.model("a")
    losses = step_over(model, values, config, micro_tokens)
    assert losses["forget_loss"] == pytest.approx(expected["forget"], rel=EXACT, abs=0)
    assert losses["retain_loss"] == pytest.approx(expected["retain"], rel=EXACT, abs=1e-12)
    assert_gradient(model, expected["grad_total"])


def test_released_divergence_is_the_mean_over_all_positions_of_the_padded_batch(values: Golden) -> None:
    """In state c: the golden value's, state a, is 0 wherever the mean is taken."""
    retain = torch.tensor(values.values["tokens"]["retain"]["input_ids"])
    model, found = values.model("c"), values.model("c")
    inputs = {"input_ids": retain, "attention_mask": (retain != 0).long()}
    log_p, log_p0 = (torch.log_softmax(net(**inputs).logits, -1) for net in (model, values.model("a")))
    divergence = (log_p0.exp() * (log_p0 - log_p)).sum(-1).mean()
    divergence.backward()
    value = float(divergence.detach())
    truth = torch.cat([p.grad.flatten() for p in model.parameters()])
    # Less the forget term's gradient, which is that of a step without a divergence.
    losses = step_over(found, values, Kl(gamma=1.0, reduction="released"), 100)
    gradient = torch.cat([p.grad.flatten() for p in found.parameters()])
    found.zero_grad()
    step_over(found, values, Kl(gamma=0.0, reduction="released"), None)
    gradient -= torch.cat([p.grad.flatten() for p in found.parameters()])
    assert losses["retain_loss"] == pytest.approx(value, rel=EXACT)
    assert value > 0.1
    torch.testing.assert_close(gradient, truth, rtol=0, atol=EXACT * float(truth.norm()))
