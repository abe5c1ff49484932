"""Whole runs of a tiny model: the new objectives, what they report, and how a run ends badly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from lethe.benchmarks.base import load_benchmark
from lethe.config.adapter import FullParameters, Lora
from lethe.config.objective import (
    AltPo,
    AnyObjective,
    Dpo,
    GradDiff,
    GradientAscent,
    Kl,
    Npo,
    Pdu,
    PreferenceOptimization,
    RetainTerm,
    Rmu,
    SimNpo,
    Undial,
)
from lethe.config.optimizer import AdamW, AnyOptimizer, Sophia
from lethe.config.run import Digests, Engine, Evaluation, Recipe, Schedule, UnlearnRun
from lethe.data.batches import Step
from lethe.errors import UserError
from lethe.evaluation.likelihood import score
from lethe.models.saving import merged
from lethe.unlearning import trainer as module
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.objectives.grad_diff import GradDiff as GradDiffLoss
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, TrialRequest
from lethe.unlearning.stepper import Stepper
from lethe.unlearning.trainer import unlearn
from lethe.unlearning.worker_entry import run_trial
from tests import tiny

SOPHIA = Sophia(learning_rate=1e-3, hessian_interval=1)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return tiny.assets(tmp_path_factory.mktemp("tiny"))


def recipe(objective: AnyObjective, optimizer: AnyOptimizer = SOPHIA, *, stage: int = 0, **schedule: Any) -> Recipe:
    return Recipe(
        objective=objective,
        optimizer=optimizer,
        adapter=FullParameters(),
        engine=Engine(stage=stage),
        seed=5,
        schedule=Schedule(**{"epochs": 1, "batch_size": 6, **schedule}),
        evaluation=Evaluation(max_new_tokens=2),
    )


def report(run: Recipe, context: Context) -> dict[str, Any]:
    with unlearn(run, context, None, lambda _: None, Alone()) as done:
        return tiny.flat(done.report)


def test_the_share_of_parameters_that_is_trained(assets: Assets) -> None:
    context = context_for(assets)
    run = recipe(GradientAscent(), AdamW(learning_rate=1e-3), max_steps=1)
    assert report(run, context)["trained_share"] == 1.0
    share = report(run.model_copy(update={"adapter": Lora(rank=2)}), context)["trained_share"]
    size = sum(p.numel() for p in context.start.parameters())
    added = share * size / (1 - share)  # of the base nothing
    shapes = [
        m.weight.shape for n, m in context.start.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    ]
    assert added == pytest.approx(2 * sum(map(sum, shapes)))


@pytest.mark.parametrize("adapter", [FullParameters(), Lora(rank=2)], ids=["full", "lora"])
def test_only_what_the_objective_names_moves(assets: Assets, adapter: FullParameters | Lora) -> None:
    context = context_for(assets)
    before = {name: weight.clone() for name, weight in context.start.named_parameters()}
    run = recipe(Rmu(layer=1, trained=r"layers\.1\.mlp\.(up|down)_proj"), AdamW(learning_rate=1e-2, weight_decay=0.1))
    with unlearn(run.model_copy(update={"adapter": adapter}), context, None, lambda _: None, Alone()) as done:
        assert done.model is not None
        share = done.report.values["trained_share"]
        moved = {
            name
            for name, weight in merged(done.model).named_parameters()
            if not torch.allclose(weight, before[name], rtol=0, atol=1e-7)
        }
    assert moved == {f"model.layers.1.mlp.{x}_proj.weight" for x in ("up", "down")}
    size = sum(weight.numel() for weight in before.values())
    if isinstance(adapter, FullParameters):
        assert share == pytest.approx(sum(before[name].numel() for name in moved) / size)
    assert share < 0.5


def distance_steered(context: Context, objective: Rmu, seed: int) -> float:
    """RMU's forget term at the start model: the mean over rows of each row's mean over its answer's tokens."""
    width = context.start.config.hidden_size
    u = torch.rand(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = []
    with torch.no_grad():
        for row in context.forget:
            out = context.start(torch.tensor([row.ids]), output_hidden_states=True)
            states = out.hidden_states[objective.layer + 1][0, row.prompt_length :].double()
            rows.append((states - objective.coefficient * u / u.norm()).square().mean())
    return float(torch.stack(rows).mean())


def distance_to_lowered(context: Context, beta: float) -> float:
    """The mean cross-entropy of the start model's predictions with the same, the true tokens' logits lowered."""
    values = []
    with torch.no_grad():
        for row in context.forget:
            logits = context.start(torch.tensor([row.ids])).logits[0, row.prompt_length - 1 : -1].double()
            target = logits - beta * torch.nn.functional.one_hot(torch.tensor(row.answer), logits.shape[1])
            values.append(-(target.softmax(-1) * logits.log_softmax(-1)).sum(-1))
    return float(torch.cat(values).mean())


def test_each_begins_where_its_formula_says(assets: Assets) -> None:
    """One step over all rows: the losses are those of the start model."""
    context = context_for(assets)
    found = {
        objective.name: report(recipe(objective), context)
        for objective in (
            GradientAscent(),
            GradDiff(),
            Kl(),
            PreferenceOptimization(),
            Npo(),
            SimNpo(),
            Dpo(),
            Undial(),
            Rmu(layer=0),
            Pdu(),
        )
    }
    assert {r["verdict"] for r in found.values()} == {"complete"}
    answers = score(context.start, context.forget, pad=context.template.pad, token_budget=8192)
    nll = answers.nll_sum.sum() / answers.tokens.sum()
    refusals = [context.refusals(5, 1).of(row, 1)[1] for row in range(len(context.forget))]
    refused = score(context.start, refusals, pad=context.template.pad, token_budget=8192)
    simnpo = 2 / 2.5 * np.log1p(np.exp(-2.5 * answers.nll_mean)).mean()
    at_start = {
        "gradient_ascent": -nll,
        "grad_diff": -nll,
        "kl": -nll,
        "simnpo": simnpo,
        "preference_optimization": refused.nll_sum.sum() / refused.tokens.sum(),
        "npo": 20 * math.log(2),
        "dpo": 20 * math.log(2),
        "undial": distance_to_lowered(context, 10),
        "rmu": distance_steered(context, Rmu(layer=0), 5),
    }
    for name, value in at_start.items():
        assert found[name]["forget_loss"] == pytest.approx(value, rel=1e-4), name
    assert "retain_loss" not in found["gradient_ascent"]
    assert found["kl"]["retain_loss"] == pytest.approx(0, abs=1e-6)
    assert found["rmu"]["retain_loss"] == pytest.approx(0, abs=1e-6)
    assert found["pdu"]["gamma"] == 1.0, "in the warm-up the dual variable stays"
    assert found["npo"]["retain_loss"] > 1
    assert found["gradient_ascent"]["tokens"] < found["grad_diff"]["tokens"] < found["dpo"]["tokens"]


def test_altpo_trains_towards_alternatives_and_every_retain_term_begins_at_the_start_model(assets: Assets) -> None:
    benchmark = assets.benchmark.model_copy(update={"alternatives": "perturbed"})
    digest = load_benchmark(benchmark).digest
    context = Context(assets.model_copy(update={"benchmark": benchmark, "data_digest": digest}))
    texts = {
        context.template.encode(question, text).ids
        for question, texts in zip(context.benchmark.forget_questions, context.benchmark.alternatives, strict=True)
        for text in texts
    }
    assert {row.ids for row in context.refusals(5, 3, alternatives=True).rows} <= texts
    found = {retain: report(recipe(AltPo(retain=retain)), context) for retain in get_args(RetainTerm)}
    for values in found.values():
        assert values["forget_loss"] == pytest.approx(20 * math.log(2), rel=1e-4)
    assert found["kl"]["retain_loss"] == pytest.approx(0, abs=1e-6)
    assert found["nll"]["retain_loss"] > 1
    assert "retain_loss" not in found["none"]
    more = report(recipe(AltPo(), retain_ratio=2), context)
    assert more["tokens"] > found["nll"]["tokens"] > found["none"]["tokens"]
    with pytest.raises(UserError, match=r"^benchmark\.alternatives is not set"):
        report(recipe(AltPo()), context_for(assets))


def test_only_refusals_that_are_met_are_scored_and_once(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(assets)
    scored: list[int] = []

    def counting(model: Any, rows: Any, **options: Any) -> Any:
        scored.append(len(rows))
        return score(model, rows, **options)

    monkeypatch.setattr("lethe.evaluation.likelihood.score", counting)
    first = context.refusal_start_log_probs(seed=1, epochs=2, token_budget=512)
    again = context.refusal_start_log_probs(seed=1, epochs=2, token_budget=512)
    rows = context.refusals(1, 2).rows
    assert again is first
    assert scored == [len(rows)]
    assert len(rows) <= 2 * len(context.forget)
    truth = -score(context.start, rows, pad=context.template.pad, token_budget=8192).nll_sum
    torch.testing.assert_close(first.double(), torch.from_numpy(truth), rtol=1e-5, atol=1e-5)


class BrokenGradient(GradDiffLoss):
    """A finite loss whose gradient is not: the root of nothing."""

    def token_values(self, scored: Any) -> torch.Tensor:
        values = super().token_values(scored)
        return values + (values - values.detach()).abs().sqrt()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_broken_gradient_ends_the_run(assets: Assets, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make_loss", lambda config, seed: BrokenGradient(config))
    for clip in (1.0, 0.0):
        found = report(recipe(GradDiff(), AdamW(), stage=stage, clip_norm=clip), context_for(assets))
        assert (found["verdict"], found["reason"]) == ("diverged", "the gradient is not finite at step 1 of 1")


def test_gradient_ascent_that_blows_up_has_diverged(assets: Assets) -> None:
    run = recipe(GradientAscent(), AdamW(learning_rate=1e18), epochs=3, decay=False)
    at_the_end = run.model_copy(update={"evaluation": Evaluation(max_new_tokens=2, every=3)})
    found = report(at_the_end, context_for(assets))
    assert (found["verdict"], found["reason"]) == ("diverged", "the loss is not finite at step 2 of 3")
    assert found["optimizer_step"] == 2
    found = report(run, context_for(assets))
    assert found["reason"] == "the model's likelihoods are not finite after step 1 of 3"


def test_weights_that_break_in_the_last_step_have_diverged(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(Stepper):
        def step(self, step: Step, rate: float) -> tuple[dict[str, torch.Tensor], float]:
            found = super().step(step, rate)
            for parameter in self.engine.module.parameters():
                parameter.data.fill_(torch.nan)
            return found

    monkeypatch.setattr(module, "Stepper", Breaking)
    found = report(recipe(GradDiff()), context_for(assets))
    assert (found["verdict"], found["reason"]) == (
        "diverged",
        "the model's likelihoods are not finite after step 1 of 1",
    )


def test_without_refusals_a_run_is_infeasible(tmp_path: Path) -> None:
    given = tiny.assets(tmp_path)
    (tmp_path / "data" / "idontknow.jsonl").unlink()
    given = given.model_copy(update={"data_digest": load_benchmark(given.benchmark).digest})
    for objective in (PreferenceOptimization(), Dpo()):
        run = UnlearnRun(recipe=recipe(objective), digests=Digests(data=given.data_digest, model=given.model_digest))
        request = TrialRequest(run=run, assets=given, reference=None, folder=tmp_path)
        found = run_trial(request, lambda _: None, Alone())
        assert found.verdict == "infeasible"
        assert str(tmp_path / "data") in found.reason
        assert "no refusals (idontknow.jsonl, one a line)" in found.reason


def test_an_oracle_of_other_rows_is_refused_before_a_step(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Stepper", lambda *_: pytest.fail("training began"))
    run = UnlearnRun(recipe=recipe(GradDiff()), digests=Digests(data=assets.data_digest, model=assets.model_digest))
    other = {"digest": "x", "forget_truth_ratio": [1.0], "forget_loss": [1.0], "holdout_loss": [], "mia_min_k": None}
    for stored, reason in ((other, "scored on 1 forget rows, here are 6"), ([1.0] * 6, "of another version of lethe")):
        (tmp_path / "truth.json").write_text(json.dumps(stored))
        request = TrialRequest(run=run, assets=assets, reference=tmp_path / "truth.json", folder=tmp_path)
        found = run_trial(request, lambda _: None, Alone())
        assert found.verdict == "infeasible"
        assert reason in found.reason
