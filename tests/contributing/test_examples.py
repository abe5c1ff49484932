"""The examples of docs/CONTRIBUTING.md, executed: each component registers, validates and does its work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from lethe.audits import AUDITS
from lethe.benchmarks.tofu import metrics
from lethe.config.audits import Audit, Audits, variants
from lethe.config.benchmark import TofuBenchmark
from lethe.config.component import Implementations
from lethe.config.metrics import TOFU_METRICS
from lethe.config.objective import Objective
from lethe.config.optimizer import Optimizer
from lethe.config.run import Recipe
from lethe.config.search import Sampler, Search
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.search.samplers import SAMPLERS, make_sampler
from lethe.unlearning.methods import METHODS
from lethe.unlearning.objectives import LOSSES
from lethe.unlearning.optim import OPTIMIZERS
from lethe.unlearning.requests import Assets
from tests import tiny
from tests.audits.small import audit, by_variant
from tests.conftest import ROOT
from tests.unlearning.methods import runs

SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/CONTRIBUTING.md").read_text(), re.S | re.M))
REGISTRIES: tuple[Implementations[Any], ...] = (LOSSES, METHODS, OPTIMIZERS, AUDITS, SAMPLERS)


@pytest.fixture(autouse=True)
def registries_as_before() -> Iterator[None]:
    """Take everything out again that an example registers."""
    tables: list[dict[Any, Any]] = [kind.registered for kind in (Objective, Optimizer, Sampler, Audit)]
    tables += [
        TOFU_METRICS,
        Audits.__pydantic_fields__,
        *(dict(registry.all()) and registry._by_config for registry in REGISTRIES),
    ]
    before, groups = [dict(table) for table in tables], list(metrics.METRIC_GROUPS)
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)
    metrics.METRIC_GROUPS[:] = groups
    Audits.model_rebuild(force=True)


def example(section: str) -> dict[str, Any]:
    """Execute a section's code as one module; returns its names."""
    blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[section], re.S | re.M)
    assert len(blocks) == 2, "the configuration and the implementation"
    names: dict[str, Any] = {"__name__": f"example_{len(section)}"}
    for block in blocks:
        exec(compile(block, f"docs/CONTRIBUTING.md, {section}", "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    return tiny.assets(tmp_path)


def trained(section: dict[str, Any], assets: Assets, folder: Path) -> dict[str, Any]:
    recipe = runs.recipe(Objective.registered["grad_diff"](), seed=1).model_dump() | section
    report, _ = runs.run(Recipe.model_validate(recipe), assets, folder)
    assert report["verdict"] == "complete"
    return report


def test_the_objective_trains_a_model(assets: Assets, tmp_path: Path) -> None:
    example("An objective")
    report = trained({"objective": {"name": "token_probability", "gamma": 2}}, assets, tmp_path / "run")
    assert 0 < report["forget_loss"] < 1
    assert report["retain_loss"] > 0


def test_the_optimizer_trains_a_model(assets: Assets, tmp_path: Path) -> None:
    example("An optimizer")
    first = trained({"optimizer": {"name": "sign_sgd", "learning_rate": 1e-3}}, assets, tmp_path / "slow")
    other = trained({"optimizer": {"name": "sign_sgd", "learning_rate": 1e-2}}, assets, tmp_path / "fast")
    assert other["forget_loss"] < first["forget_loss"], "minus the forget rows' NLL falls faster"
    assert "win_rate" not in first


def test_the_method_changes_a_model_and_a_study_of_it_has_no_optimizer(assets: Assets, tmp_path: Path) -> None:
    example("A method")
    little, much = (
        trained({"objective": {"name": "noise", "scale": scale}}, assets, tmp_path / str(scale))
        for scale in (0.001, 0.5)
    )
    assert little["optimizer_step"] == 0
    assert little["forget_probability"] != much["forget_probability"]
    with pytest.raises(UserError, match="noise reads no optimizer"):
        load_study("tofu", ["space=null", "run={objective: {name: noise}, optimizer: {name: adamw}}"])


def test_the_metric_is_reported_and_can_be_searched_over(assets: Assets, tmp_path: Path) -> None:
    example("A metric")
    report = trained({}, assets, tmp_path / "run")
    assert report["forget_probability"] <= report["forget_best_remembered"] <= 1
    study = load_study("tofu", ["objectives.forget_best_remembered={direction: minimize}"])
    assert "forget_best_remembered" in study.objectives


def test_the_audit_measures_a_model_and_a_study_can_ask_for_it(assets: Assets) -> None:
    example("An audit")
    found = by_variant(audit(assets, Path(assets.start), {"pruning": {"share": 0.9}}))["pruned"]
    assert found["before"].keys() == found["after"].keys() == set(TofuBenchmark.leaks)
    assert found["before"] != found["after"]
    study = load_study("tofu", ["audits.pruning.share=0.5"])
    assert study.audits
    assert list(variants(study.audits)) == ["pruned"]
    with pytest.raises(UserError, match=r"audits\.pruning\.share: must be less than 1, given 2"):
        load_study("tofu", ["audits.pruning.share=2"])


def test_the_sampler_covers_the_space_evenly() -> None:
    example("A sampler")
    search = Search.model_validate({"sampler": "halton"})
    study = optuna.create_study()
    seen = []
    for number in range(17):
        study.sampler = make_sampler(search, number)
        trial = study.ask()
        seen.append(trial.suggest_float("x", 0, 1))
        study.tell(trial, 0.0)
    # The first proposal is random, since no trial has shown the space yet, and the sequence begins with 0.
    assert sorted(int(16 * x) for x in seen[1:]) == list(range(16))
    with pytest.raises(UserError, match="halton does not learn from another study's trials: use tpe or gp"):
        load_study("tofu", ["search.sampler=halton", "search.warm_start=other"])


def test_the_benchmark_shown_is_the_one_that_the_conformance_suite_runs() -> None:
    folder = ROOT / "tests/benchmarks/example_capitals"
    code = "\n".join(path.read_text() for path in folder.glob("*.py"))
    blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS["A benchmark"], re.S | re.M)
    assert blocks
    assert all(block in code for block in blocks)


def test_an_example_is_gone_when_its_test_has_ended() -> None:
    assert "noise" not in Objective.registered
    assert "pruning" not in Audits.model_fields
    with pytest.raises(UserError, match=r"unknown key 'audits\.pruning'"):
        load_study("tofu", ["audits.pruning={}"])


def test_a_name_is_registered_once() -> None:
    example("An objective")
    with pytest.raises(ValueError, match="the name 'token_probability' belongs to TokenProbability"):
        example("An objective")
