"""Every method as a trial: what it reports, what it leaves, what studies may say about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file

from lethe.config.adapter import Lora
from lethe.config.base import canonical_json, flatten
from lethe.config.benchmark import Corpus, TofuBenchmark
from lethe.config.model import EmbeddedModel, PretrainedModel
from lethe.config.objective import Influence, InputGuard, Method, Objective, Retrain
from lethe.config.optimizer import Sophia
from lethe.config.run import Recipe
from lethe.config.space import Choice, build_recipe
from lethe.config.study import Study, parse_study
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.loading import load_model, load_tokenizer
from lethe.models.tokenizer import as_pretrained, train_tokenizer
from lethe.study.preparation import prepare
from lethe.unlearning.methods import METHODS
from lethe.unlearning.methods.input_guard import topics
from lethe.unlearning.requests import Assets
from tests import tiny
from tests.unlearning.methods import runs

pytestmark = pytest.mark.slow

COSTS = {"epoch", "optimizer_step", "tokens", "trained_share", "peak_memory_mb"}
COSTS |= {"seconds", "cpu_seconds", "train_seconds", "evaluate_seconds"}
NAMES = [name for name, model in Objective.registered.items() if issubclass(model, Method)]
METRICS = {"forget", "utility", "forget_rouge", "forget_extraction_strength"}
CORPUS = Corpus(authors=20, questions=2, holdout_authors=1, real_authors=2, world_facts=2, retain_eval=4)
FAMILY = EmbeddedModel(hidden_size=16, layers=1, heads=2, vocab_size=400, max_length=256, epochs=2)
GUARD = InputGuard(instruction="w1 w2:")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    folder = tmp_path_factory.mktemp("tiny")
    return tiny.assets(folder).model_copy(update={"origin": str(tiny.write_model(folder / "base", seed=1))})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_every_configuration_has_its_method() -> None:
    assert set(METHODS.all()) == {model for model in Objective.registered.values() if issubclass(model, Method)}


@pytest.mark.parametrize("hessian", ["gnb", "empirical_fisher"])
def test_influence_is_one_step(assets: Assets, tmp_path: Path, hessian: str) -> None:
    recipe = runs.recipe(Influence.model_validate({"hessian": hessian}))
    found, before = runs.run(recipe, assets, tmp_path / "one")
    assert found["verdict"] == "complete"
    assert before == []
    assert COSTS | METRICS | {"forget_loss", "retain_loss"} <= found.keys()
    assert (found["epoch"], found["optimizer_step"]) == (1, 1)
    assert found["tokens"] > 0
    assert found["samples"]
    assert found["forget_loss"] < 0 < found["retain_loss"]
    again, _ = runs.run(recipe, assets, tmp_path / "two")
    assert same(tmp_path / "one/model", tmp_path / "two/model")
    assert not same(tmp_path / "one/model", Path(assets.start))
    assert {k: v for k, v in found.items() if k in METRICS} == {k: v for k, v in again.items() if k in METRICS}
    torch.testing.assert_close(weights(tmp_path / "one/model"), load_model(tmp_path / "one/model").state_dict())


def test_an_influence_step_that_is_too_long_has_diverged(assets: Assets, tmp_path: Path) -> None:
    found, _ = runs.run(runs.recipe(Influence(strength=1e38, damping=1e-30)), assets, tmp_path)
    assert (found["verdict"], found["reason"]) == ("diverged", "the influence step is not finite")
    found, _ = runs.run(runs.recipe(Influence(strength=1e30)), assets, tmp_path)
    assert (found["verdict"], found["reason"]) == ("diverged", "the model's likelihoods are not finite")
    assert found["optimizer_step"] == 1
    assert not (tmp_path / "model").exists()


def test_input_guard_asks_the_start_model_otherwise(assets: Assets, tmp_path: Path) -> None:
    found, before = runs.run(runs.recipe(GUARD), assets, tmp_path)
    assert found["verdict"] == "complete"
    assert before == []
    assert found.keys() >= COSTS | METRICS
    assert (found["epoch"], found["optimizer_step"], found["tokens"], found["train_seconds"]) == (0, 0, 0, 0)
    assert same(tmp_path / "model", Path(assets.start))
    assert json.loads((tmp_path / "model/input_guard.json").read_text()) == {"instruction": "w1 w2:"}
    other, _ = runs.run(runs.recipe(InputGuard(instruction="w3 w4 w5")), assets, tmp_path / "other")
    assert found["forget_probability"] != other["forget_probability"]


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("w1 " * 60, "with the instruction a row has 7. tokens, the model takes 64: shorten it"),
        ("{topics}", "no name is in forget questions alone: leave {topics} out of the instruction"),
    ],
)
def test_instructions_without_names_or_too_long_are_infeasible(
    assets: Assets, tmp_path: Path, instruction: str, reason: str
) -> None:
    found, _ = runs.run(runs.recipe(InputGuard(instruction=instruction)), assets, tmp_path)
    assert found["verdict"] == "infeasible"
    assert all(a in (b, ".") for a, b in zip(reason, found["reason"], strict=True))


def test_a_saved_guard_is_in_the_chat_template(tmp_path: Path) -> None:
    """Stock transformers then ask as the evaluation did; quotes and braces are only text."""
    instruction = 'Of Ada Mill say "no" \\ {{ 1 }}: Ö'
    plain = as_pretrained(train_tokenizer([instruction], 400))
    guarded = Template(plain, instruction=instruction)
    guarded.portable_tokenizer().save_pretrained(tmp_path)
    saved = Template(load_tokenizer(tmp_path))
    assert saved.prompt("Who?") == guarded.prompt("Who?") == Template(plain).prompt(f"{instruction} Who?")
    assert Template(plain).portable_tokenizer() is plain
    assert guarded.prompt("Who?") != Template(plain).prompt("Who?")


def test_topics_are_names_in_forget_questions_alone() -> None:
    forget = ["When was Zoë Ada Mill born?", "What did Émile Öst's father do?", "Was Émile Öst in New York?"]
    retain = ["Who lives in New York?", "Did Ada Mill write?"]
    assert topics(forget, retain) == ["Émile Öst", "Zoë Ada Mill"]


@pytest.mark.parametrize("optimizer", [None, Sophia(learning_rate=1e-2, hessian_interval=2)], ids=["adamw", "sophia"])
def test_retrain_from_a_base_checkpoint(assets: Assets, tmp_path: Path, optimizer: Sophia | None) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer} if optimizer else {}
    found, before = runs.run(runs.recipe(Retrain(), adapter=Lora(), **changes), assets, tmp_path)
    assert found["verdict"] == "complete"
    assert [r["epoch"] for r in before] == [1]
    # 9 retain rows in batches of 4, twice.
    assert (found["epoch"], found["optimizer_step"]) == (2, 6)
    assert found.keys() >= COSTS | METRICS
    assert found["retain_loss"] < before[0]["retain_loss"]
    assert "forget_loss" not in found
    moved, base = weights(tmp_path / "model"), weights(Path(str(assets.origin)))
    assert moved.keys() == base.keys()
    assert all(not torch.equal(moved[name], base[name]) for name in base)


def test_retrain_does_not_know_the_forget_rows(assets: Assets, tmp_path: Path) -> None:
    """Other forget answers, the same model."""
    source = tiny.write_data(tmp_path / "other")
    for path in source.glob("forget10*.json"):
        path.write_text(path.read_text().replace("w1", "w2"))
    benchmark = TofuBenchmark(source=str(source))
    from lethe.benchmarks.base import load_benchmark

    other = assets.model_copy(update={"benchmark": benchmark, "data_digest": load_benchmark(benchmark).digest})
    for name, given in (("one", assets), ("two", other)):
        runs.run(runs.recipe(Retrain()), given, tmp_path / name)
    assert same(tmp_path / "one/model", tmp_path / "two/model")


def test_retraining_the_embedded_model_gives_its_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    data = TofuBenchmark(corpus=CORPUS)
    prepared = prepare(data, FAMILY, progress=lambda name, share: None)
    embedded = Assets(
        benchmark=data,
        data_digest=prepared.digests.data,
        model_digest=prepared.digests.model,
        start=str(prepared.start),
        origin=FAMILY,
        cache=str(tmp_path / "cache"),
    )
    found, before = runs.run(runs.recipe(Retrain()), embedded, tmp_path)
    assert found["verdict"] == "complete"
    assert before == []
    assert COSTS | METRICS | {"retain_loss"} <= found.keys()
    assert prepared.oracle
    assert same(tmp_path / "model", prepared.oracle)
    assert (found["epoch"], found["optimizer_step"]) == (2, 6)
    assert 0 < found["train_seconds"] < found["seconds"]


def test_without_an_origin_there_is_no_retraining(assets: Assets, tmp_path: Path) -> None:
    found, _ = runs.run(runs.recipe(Retrain()), assets.model_copy(update={"origin": None}), tmp_path)
    assert found["verdict"] == "infeasible"
    assert found["reason"] == "retrain needs model.base, the checkpoint that model.path was made from"


def test_a_base_of_another_vocabulary_is_refused(assets: Assets, tmp_path: Path) -> None:
    base = Path(shutil.copytree(str(assets.origin), tmp_path / "base"))
    known = PretrainedModel(path=assets.start, base=str(base))
    prepared = prepare(assets.benchmark, known)
    assert prepared.base == base
    assert prepared.digests.base not in (None, prepared.digests.model)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": 99}))
    with pytest.raises(UserError, match=r"model.base: .* has a vocabulary of 99 tokens, model.path one of 47"):
        prepare(assets.benchmark, known)


def test_two_ranks_give_the_numbers_of_one(assets: Assets, tmp_path: Path) -> None:
    """Rank 0 "trains" by copying the base checkpoint, which the other rank can have from it alone."""
    embedded = assets.model_copy(update={"origin": FAMILY})
    instead = InputGuard(instruction="{topics}")
    cases = [(runs.recipe(o), embedded) for o in (Influence(), GUARD, Retrain(), instead)]
    multiprocessing.start_processes(
        runs.serve, args=(str(tmp_path), str(assets.origin), cases), nprocs=runs.WORLD, start_method="spawn"
    )
    first, second = (torch.load(tmp_path / f"reports-{rank}.pt", weights_only=True) for rank in range(runs.WORLD))
    assert [r["verdict"] for r in first] == [r["verdict"] for r in second] == ["complete"] * 3 + ["infeasible"]
    alone = [runs.run(recipe, given, tmp_path / "alone")[0] for recipe, given in cases[:2]]
    for name in METRICS | {"forget_probability", "retain_probability", "tokens"}:
        assert [r[name] for r in first[:2]] == pytest.approx([r[name] for r in alone], rel=1e-4), name
        assert [r.get(name) for r in first] == [r.get(name) for r in second]
    assert same(tmp_path / "2/model", Path(str(assets.origin)))


# Studies


def study(*names: str, **sections: Any) -> Study:
    raw: dict[str, Any] = {
        "name": "methods",
        "space": {
            "objective.name": {"type": "choice", "choices": list(names)},
            "objective.damping": {"type": "float", "low": 1e-3, "high": 100, "log": True},
            "adapter.name": {"type": "choice", "choices": ["full", "lora"]},
            "adapter.rank": {"type": "choice", "choices": [4, 8]},
            "optimizer.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True},
            "seed": {"type": "int", "low": 0, "high": 3},
        },
        "objectives": {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}},
    }
    return parse_study({**raw, **sections})


def proposal(from_study: Study, name: str) -> tuple[Recipe, list[str]]:
    """The recipe with this objective and the last or highest of everything else, and what was asked for it."""
    asked: list[str] = []

    def suggest(key: str, parameter: Any) -> Any:
        asked.append(key)
        if key == "objective.name":
            return name
        return parameter.choices[-1] if isinstance(parameter, Choice) else parameter.high

    return build_recipe(from_study.run, from_study.space, suggest), asked


def test_a_method_is_asked_for_nothing_that_it_does_not_read() -> None:
    among = study("npo", *NAMES)
    asked = {name: set(proposal(among, name)[1]) - {"objective.name"} for name in ("npo", *NAMES)}
    assert asked["npo"] == {"adapter.name", "adapter.rank", "optimizer.learning_rate", "seed"}
    assert asked["influence"] == {"objective.damping", "seed"}
    assert asked["retrain"] == {"optimizer.learning_rate", "seed"}
    assert asked["input_guard"] == set()


def test_trials_that_do_the_same_are_the_same_run() -> None:
    guard = [Recipe(objective=InputGuard(), seed=seed, optimizer=o) for seed, o in ((1, Sophia()), (2, runs.AdamW()))]
    proposed, _ = proposal(study("npo", "influence", "input_guard"), "input_guard")
    assert guard[0].digest() == guard[1].digest() == proposed.digest()
    assert {key.partition(".")[0] for key in flatten(guard[0])} == {"objective", "engine", "evaluation"}
    assert Recipe.model_validate_json(canonical_json(guard[0].model_dump())).digest() == guard[0].digest()
    assert Recipe(objective=Influence(), seed=1).digest() != Recipe(objective=Influence(), seed=2).digest()


@pytest.mark.parametrize(
    ("names", "sections", "line"),
    [
        (
            ["input_guard", "influence"],
            {},
            "space.adapter.name: input_guard, influence reads no adapter: take it out with --set "
            "space.adapter.name=null",
        ),
        (
            ["influence"],
            {"space": {}, "run": {"objective": {"name": "influence"}, "optimizer": {"name": "adamw"}}},
            "run.optimizer.name: influence reads no optimizer: take it out with --set run.optimizer=null",
        ),
        (
            ["npo", "influence", "retrain"],
            {"model": {"name": "pretrained", "path": "x"}},
            "model.base: missing: retrain needs the checkpoint that model.path was made from",
        ),
        (
            ["input_guard"],
            {"space": {}, "run": {"objective": {"name": "input_guard", "instruction": ""}}},
            "run.objective.instruction: must have at least 1 character, given ''",
        ),
        (
            ["influence"],
            {"space": {}, "run": {"objective": {"name": "influence", "damping": 0}}},
            "run.objective.damping: must be greater than 0, given 0",
        ),
        (
            ["influence"],
            {"space": {}, "run": {"objective": {"name": "influence", "gamma": 1}}},
            "run.objective.gamma: influence has no gamma, ",
        ),
    ],
)
def test_studies_with_settings_that_no_method_reads_are_refused(
    names: list[str], sections: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError) as refused:
        study(*names, **sections)
    assert str(refused.value).startswith(line)
