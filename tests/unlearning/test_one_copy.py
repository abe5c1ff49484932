"""A process holds the base weights once, and no run changes them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from lethe.config.adapter import AnyAdapter, Fila, FullParameters, Lora, Pissa
from lethe.config.objective import AnyObjective, Dpo, GradDiff, Kl, Npo
from lethe.config.optimizer import AdamW
from lethe.config.run import Engine, Evaluation, Recipe, Schedule
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets
from lethe.unlearning.trainer import unlearn
from tests import tiny


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return tiny.assets(tmp_path_factory.mktemp("tiny"))


def recipe(adapter: AnyAdapter, objective: AnyObjective | None = None, stage: int = 0, **schedule: Any) -> Recipe:
    return Recipe(
        objective=objective or GradDiff(),
        optimizer=AdamW(learning_rate=1e-2),
        adapter=adapter,
        engine=Engine(stage=stage),
        schedule=Schedule(**{"epochs": 1, "batch_size": 3, **schedule}),
        evaluation=Evaluation(max_new_tokens=2),
        seed=1,
    )


def ignore(_: Any) -> None:
    """Take a report."""


def values(run: Recipe, context: Context, report: Any = ignore) -> dict[str, float]:
    with unlearn(run, context, None, report, Alone()) as done:
        assert done.report.verdict == "complete"
        return {k: v for k, v in done.report.values.items() if "seconds" not in k and "memory" not in k}


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in model.named_parameters()}


def stop(_: Any) -> None:
    raise KeyboardInterrupt


def test_runs_with_adapters_share_the_base_and_leave_it_as_it_was(assets: Assets) -> None:
    context = Context(assets)
    before = bits(context.start)
    marks = set(vars(next(context.start.parameters())))
    storages = {p.untyped_storage().data_ptr() for p in context.start.parameters()}
    for stage in (0, 2):
        for adapter in (Lora(rank=2), Pissa(rank=2), Fila(rank=2, fisher_rows=4)):
            values(recipe(adapter, Npo(), stage), context)
            with pytest.raises(KeyboardInterrupt):
                values(recipe(adapter, stage=stage, epochs=2), context, stop)
    with unlearn(recipe(Lora(rank=2)), context, None, ignore, Alone()) as done:
        assert done.model is not None
        frozen = {p.untyped_storage().data_ptr() for p in done.model.parameters() if not p.requires_grad}
        assert frozen == storages
    assert bits(context.start) == before
    modules = list(context.start.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)
    assert all(p.grad is None and set(vars(p)) == marks for p in context.start.parameters())


@pytest.mark.parametrize("objective", [GradDiff(), Npo()], ids=lambda o: o.name)
def test_no_start_model_stays_beside_a_run_that_trains_every_weight(assets: Assets, objective: AnyObjective) -> None:
    context = Context(assets)
    before = bits(context.start)
    run = recipe(FullParameters(), objective)
    first = values(run, context)
    assert "start" not in vars(context)
    assert values(run, context) == first
    assert bits(context.start) == before


def test_under_stage_3_no_rank_loads_the_start_model(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("loaded whole onto the device")

    monkeypatch.setattr("lethe.unlearning.context.load_network", load)
    values(recipe(Lora(rank=2), Npo(), 3), Context(assets))
    values(recipe(FullParameters(), Npo(), 3), Context(assets))
    values(recipe(Lora(rank=2), Kl(), 3), Context(assets))


@pytest.mark.parametrize("objective", [Npo(), Kl(), Dpo()], ids=lambda o: o.name)
@pytest.mark.parametrize("adapter", [Lora(rank=2), Fila(rank=2, fisher_rows=4)], ids=lambda a: a.name)
def test_references_of_a_sharded_base_are_those_of_the_start_model(
    assets: Assets, adapter: AnyAdapter, objective: AnyObjective
) -> None:
    sharded, whole = (losses(assets, recipe(adapter, objective, stage)) for stage in (3, 0))
    assert sharded == pytest.approx(whole, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_nothing_keeps_the_engine_of_a_run_that_has_ended(assets: Assets, stage: int) -> None:
    context = Context(assets)
    with unlearn(recipe(FullParameters(), stage=stage), context, None, ignore, Alone()) as done:
        assert done.model is not None
        weight = weakref.ref(next(done.model.parameters()))
    del done
    gc.collect()
    assert weight() is None


def losses(assets: Assets, run: Recipe) -> list[float]:
    found = values(run, Context(assets))
    return [value for name, value in found.items() if name.endswith("_loss")]
