"""A study's prompt reaches training, evaluation, the saved model and whoever scores that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.config.adapter import Fila, FullParameters, Lora
from lethe.config.objective import GradDiff, InputGuard
from lethe.config.prompt import Prompt
from lethe.config.run import Engine
from lethe.models.loading import load_tokenizer
from lethe.study.scored_models import find
from lethe.study.scoring import Scoring
from lethe.unlearning.context import Context
from lethe.unlearning.requests import Assets
from tests import tiny
from tests.unlearning.methods import runs

PROMPT = Prompt(template="w1 {question} w2 ")
MEASURED = ("forget_probability", "retain_probability", "forget_rouge")


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Assets:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    return tiny.assets(tmp_path).model_copy(update={"prompt": PROMPT})


def scores(folder: Path, assets: Assets, recipe: Any) -> dict[str, float]:
    """The metrics that `score` gives of the model in a run's folder, without being told its prompt."""
    scoring = Scoring(load_benchmark(assets.benchmark), recipe.evaluation, Engine())
    return scoring.scores(find(str(folder), base=assets.start)).metrics


@pytest.mark.parametrize("adapter", [FullParameters(), Lora(rank=2)], ids=["full", "lora"])
def test_a_saved_model_is_asked_as_it_was_trained(assets: Assets, tmp_path: Path, adapter: Any) -> None:
    recipe = runs.recipe(GradDiff(), adapter=adapter)
    logged, _ = runs.run(recipe, assets, tmp_path / "run")
    default, _ = runs.run(recipe, assets.model_copy(update={"prompt": Prompt()}), tmp_path / "default")
    assert logged["forget_probability"] != default["forget_probability"]
    for folder, report in (("run", logged), ("default", default)):
        found = scores(tmp_path / folder, assets, recipe)
        assert {name: found[name] for name in MEASURED} == pytest.approx({name: report[name] for name in MEASURED})
    saved = load_tokenizer(tmp_path / "run" / "model")
    asked = saved.apply_chat_template([{"role": "user", "content": "w3"}], tokenize=False, add_generation_prompt=True)
    assert asked == "w1 w3 w2", "by stock transformers, too"


def test_an_instruction_is_part_of_a_prompt(assets: Assets, tmp_path: Path) -> None:
    recipe = runs.recipe(InputGuard(instruction="w4 w5"))
    logged, _ = runs.run(recipe, assets, tmp_path / "run")
    found = scores(tmp_path / "run", assets, recipe)
    assert {name: found[name] for name in MEASURED} == pytest.approx({name: logged[name] for name in MEASURED})
    template = find(str(tmp_path / "run")).template()
    assert template.decode(list(template.prompt("w3"))) == "w1 w4 w5 w3 w2"


def test_fisher_weights_are_those_of_the_prompts_tokens(assets: Assets) -> None:
    for given in (assets, assets, assets.model_copy(update={"prompt": Prompt()})):
        Context(given).initial(Fila(rank=2))
    kept = [path.name.partition("-")[0] for path in (Path(assets.cache) / "adapters").glob("f*")]
    assert sorted(kept) == ["factors"] * 2 + ["fisher"] * 2
