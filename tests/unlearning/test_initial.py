"""Adapters that start in principal directions: computed once per study, and whole runs that begin there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lethe.config.adapter import Fila, Pissa
from lethe.config.optimizer import AdamW, AnyOptimizer, Sophia
from lethe.config.run import Evaluation, Recipe, Schedule
from lethe.models.saving import save_model
from lethe.unlearning import context
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.trainer import unlearn
from tests import tiny
from tests.models.small import logits, tokens


@pytest.mark.parametrize("svd", ["exact", "oversampled"])
def test_fisher_and_svd_are_computed_once_per_study(svd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("row_weights", "start_factors"):

        def counted(*args: object, name: str = name, inner: object = getattr(context, name)) -> object:
            done.append(name)
            return inner(*args)

        monkeypatch.setattr(context, name, counted)
    assets = tiny.assets(tmp_path).model_copy(update={"largest_rank": 8})
    groups = [Context(assets), Context(assets)]
    trials = [Fila(rank=rank, svd=svd, fisher_rows=3) for rank in (2, 8)]
    starts = [[group.initial(trial) for trial in trials] for group in groups]
    assert done == ["row_weights", "start_factors"]
    for small, large in starts:
        for name, (a, b) in small.items():
            assert a.shape[0] == b.shape[1] == 2
            assert torch.equal(a, large[name][0][:2])
            assert torch.equal(b, large[name][1][:, :2])
    assert sorted({a.shape[0] for name, a in _stored(assets.cache).items() if name.endswith(".A")}) == [8]
    groups[0].initial(Pissa(rank=2, svd=svd))
    assert done == ["row_weights", "start_factors", "start_factors"], "PiSSA has no Fisher"


def _stored(cache: str) -> dict[str, torch.Tensor]:
    (path,) = (Path(cache) / "adapters").glob("factors-*.safetensors")
    return load_file(path)


def test_a_run_as_released_leaves_an_adapter_for_the_start_model(tmp_path: Path) -> None:
    """FILA and Sophia as their authors released them, a whole run; stock peft loads the result."""
    assets = tiny.assets(tmp_path)
    adapter = Fila(rank=4, fisher="batch", fisher_eps=1e-5, fisher_eps_relative=False, svd="oversampled")

    def recipe(optimizer: AnyOptimizer) -> Recipe:
        schedule = Schedule(epochs=1, batch_size=3)
        return Recipe(adapter=adapter, optimizer=optimizer, schedule=schedule, evaluation=Evaluation(max_new_tokens=2))

    released = Sophia(learning_rate=1e-3, hessian="squared_gradient", betas=(0.9, 0.95))
    with unlearn(recipe(released), Context(assets), None, lambda _: None, Alone()) as done:
        truth = logits(done.model, tokens() % 40)
        save_model(done.model, tmp_path / "saved")
    start = AutoModelForCausalLM.from_pretrained(assets.start)
    assert (logits(start, tokens() % 40) - truth).abs().max() > 1e-3
    again = PeftModel.from_pretrained(start, tmp_path / "saved").eval()
    torch.testing.assert_close(logits(again, tokens() % 40), truth, rtol=0, atol=1e-5)
    assert 0 < done.report.values["win_rate"] < 1
    with unlearn(recipe(AdamW()), Context(assets), None, lambda _: None, Alone()) as first_order:
        assert done.report.values["tokens"] == first_order.report.values["tokens"], "no pass beside the steps'"
