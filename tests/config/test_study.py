"""Studies from YAML: found, extended, overridden, identified, and all of it light."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lethe.config import loading
from lethe.config.base import Frozen
from lethe.config.benchmark import TofuBenchmark
from lethe.config.metrics import TOFU_METRICS
from lethe.config.run import Recipe
from lethe.config.scaling import load_scaling
from lethe.config.search import AreaHalving, MoAsha, NoStopping
from lethe.config.space import variants
from lethe.config.study import Study, load_study
from lethe.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(loading.spaces()))
def test_every_study_of_the_repository_loads(name: str) -> None:
    load = load_scaling if "scaling" in loading.read(name) else load_study
    assert load(name).name == name


def test_the_default_study_explores_what_the_mission_names() -> None:
    study = load_study("tofu")
    searched = {"optimizer.learning_rate", "optimizer.clip_threshold", "optimizer.hessian_interval", "adapter.rank"}
    assert searched <= study.space.keys()
    assert [(n, g.direction, g.floor_of_start) for n, g in study.objectives.items()] == [
        ("forget", "minimize", 1.0),
        ("utility", "maximize", 0.5),
    ]


def test_one_file_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "name: theirs\nrun: {seed: 3, schedule: {epochs: 4, warmup: 0.1}}\n"
        "space: {adapter.rank: {type: choice, choices: [4]}, seed: {type: int, low: 0, high: 5}}\n"
        "objectives: {forget: {direction: minimize}}\n"
    )
    (tmp_path / "child.yaml").write_text(
        "extends: base\nrun: {seed: null, schedule: {epochs: 9}}\n"
        "space: {seed: {high: 7}, adapter.rank: {type: int, low: 2, high: 6}, optimizer.weight_decay: null}\n"
        "objectives: {utility: {direction: maximize}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        (tmp_path / "base.yaml").write_text((tmp_path / "base.yaml").read_text())
        child = load_study("./child.yaml")
    assert child.name == "child"
    assert child.run == {"schedule": {"epochs": 9, "warmup": 0.1}}
    assert (child.space["seed"].low, child.space["seed"].high) == (0, 7)
    assert child.space["adapter.rank"].model_dump() == {"type": "int", "low": 2, "high": 6, "log": False}
    assert list(child.objectives) == ["forget", "utility"]


def test_a_file_of_ones_own_extends_a_study_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: tofu\nsearch: {trials: 3}\n")
    mine = load_study(str(tmp_path / "mine.yaml"))
    assert (mine.name, mine.search.trials, mine.space) == ("mine", 3, load_study("tofu").space)
    assert mine.identity() == load_study("tofu").identity()


def test_fixing_a_value_ends_its_search_and_searching_it_removes_it() -> None:
    fixed = load_study("tofu", ["run.optimizer.learning_rate=1e-3", "run.schedule.epochs=2"])
    assert "optimizer.learning_rate" not in fixed.space
    assert fixed.run["optimizer"]["learning_rate"] == 1e-3
    searched = load_study("tofu", ["space.schedule.epochs={type: int, low: 1, high: 5}"])
    assert "schedule.epochs" in searched.space
    assert "epochs" not in searched.run["schedule"]
    kept = load_study("tofu", ["run.optimizer.learning_rate=null", "space.schedule.epochs=null"])
    assert kept == load_study("tofu")


def test_naming_another_component_takes_what_only_the_former_had() -> None:
    tofu = load_study("tofu")
    assert tofu.run["objective"] == {"beta": 0.16, "name": "npo"}
    assert load_study("tofu", ["run.objective.name=ihl"]).run["objective"] == {"name": "ihl"}
    assert load_study("tofu", ["run.objective.name=simnpo"]).run["objective"] == {"name": "simnpo", "beta": 0.16}
    adamw = load_study("tofu", ["run.optimizer.name=adamw"])
    assert tofu.space.keys() - adamw.space.keys() == {"optimizer.clip_threshold", "optimizer.hessian_interval"}
    both = load_study("tofu", ["space.optimizer.name={type: choice, choices: [adamw, sophia]}"])
    assert tofu.space.keys() < both.space.keys()
    with pytest.raises(UserError, match="ihl has no beta"):  # given with the new name
        load_study("tofu", ["run.objective={name: ihl, beta: 0.2}"])


def test_overrides_reach_everything() -> None:
    study = load_study(
        "tofu",
        [
            "search.trials=24",
            "space.optimizer.learning_rate.low=1e-4",
            "space.adapter.rank={type: int, low: 2, high: 6}",
            "space.schedule.epochs={type: int, low: 1, high: 5}",
            "run.optimizer.hessian_interval=5",
            "objectives.seconds={direction: minimize, floor: 60}",
            "name=mine",
        ],
    )
    assert (study.name, study.search.trials) == ("mine", 24)
    assert study.space["optimizer.learning_rate"].low == 1e-4
    assert study.space["adapter.rank"].type == "int"
    assert "schedule.epochs" in study.space
    assert "optimizer.hessian_interval" not in study.space
    assert study.run["optimizer"]["hessian_interval"] == 5
    assert study.objectives["seconds"].floor == 60


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "1.e-4", ".1e-3", "10e-5", "0.0001"])
def test_exponents_are_numbers_though_yaml_1_1_says_text(text: str) -> None:
    assert loading.parse(f"x: {text}", "here") == {"x": pytest.approx(1e-4)}
    assert loading.parse("[1e5x, e5, 'x', 12, true, null]", "here") == ["1e5x", "e5", "x", 12, True, None]
    assert loading.parse("'1e-4'", "here") == "1e-4"


def test_anchors_and_merge_keys_still_work() -> None:
    assert loading.parse("a: &a {x: 1}\nb: {<<: *a, y: 2}", "here")["b"] == {"x": 1, "y": 2}


def test_identity_is_what_the_trials_are() -> None:
    base = load_study("tofu")
    same = ["search.trials=99", "name=x", "resources.groups=2", "tracking.enabled=false", "run.schedule.epochs=30"]
    assert all(load_study("tofu", [o]).identity() == base.identity() for o in same)
    others = [
        "search.seed=1",
        "search.sampler=random",
        "run.schedule.epochs=6",
        "run.optimizer.eps=1e-9",
        "space.adapter.rank.choices=[4]",
        "objectives.utility.floor_of_start=0.6",
        "benchmark.forget=forget05",
        "model.layers=2",
    ]
    assert len({base.identity(), *(load_study("tofu", [o]).identity() for o in others)}) == len(others) + 1


def test_text_is_kept_for_benchmarks_and_redacted_for_rows_of_a_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_study("tofu")
    assert base.stored_text == "keep"
    assert "privacy" not in base.model_dump(), "earlier studies keep their digests"
    kept = load_study("tofu", ["privacy.text=keep"])
    assert kept.identity() == base.identity()
    hidden = load_study("tofu", ["privacy.text=none"])
    assert (hidden.stored_text, hidden.identity() == base.identity()) == ("none", False), "its files are others"
    assert Study.model_validate_json(hidden.model_dump_json()) == hidden
    monkeypatch.setattr(TofuBenchmark, "personal_text", True)
    assert (base.stored_text, kept.stored_text) == ("redact", "keep")


def test_identity_survives_a_round_trip_and_the_order_of_keys() -> None:
    base = load_study("tofu")
    assert Study.model_validate_json(base.model_dump_json()).identity() == base.identity()
    again = yaml.safe_load(yaml.safe_dump(base.model_dump(mode="json"), sort_keys=False))
    again["space"] = dict(reversed(again["space"].items()))
    assert Study.model_validate(again).identity() == base.identity()


def test_packaged_studies_where_there_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    (packaged / "inside.yaml").write_text("objectives: {forget: {direction: minimize}}")
    monkeypatch.setattr(loading.lethe, "__file__", str(tmp_path / "site" / "packages" / "lethe" / "__init__.py"))
    monkeypatch.setattr(loading.resources, "files", lambda name: {"lethe.search_spaces": packaged}[name])
    assert load_study("inside").name == "inside"


def test_a_study_loads_without_torch_ray_and_optuna() -> None:
    source = (
        "import platform, sys; from lethe.config.study import load_study;"
        "load_study('tofu', ['search.trials=3']).identity(); heavy = {'torch', 'ray', 'optuna'} & sys.modules.keys();"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_search_loads_neither_torch_nor_ray() -> None:
    source = (
        "import platform, sys; from lethe.search import front, objectives, pareto, study_store, trial_state;"
        "sys.exit(bool({'torch', 'ray'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", source], cwd=ROOT).returncode == 0


def test_every_family_knows_its_variants_by_name() -> None:
    assert set(variants("optimizer")) >= {"adamw", "sophia"}
    assert set(variants("schedule")) == {""}
    assert variants("seed") == {}
    assert set(Recipe.model_fields) >= {"objective", "adapter", "seed"}


def test_metrics_have_a_direction_and_a_meaning() -> None:
    assert all(m.better in ("minimize", "maximize") and m.meaning for m in TOFU_METRICS.values())
    assert (TOFU_METRICS["forget"].better, TOFU_METRICS["utility"].better) == ("minimize", "maximize")
    assert [name for name, metric in TOFU_METRICS.items() if metric.cost] == [
        "seconds",
        "cpu_seconds",
        "peak_memory_mb",
        "tokens",
    ]


def test_ctrl_c_while_a_value_is_written_down_stays_one() -> None:
    class Interrupted(Frozen):
        def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
            raise KeyboardInterrupt

    class Outer(Frozen):
        inner: tuple[Interrupted, ...] = (Interrupted(),)

    with pytest.raises(KeyboardInterrupt):
        Outer().digest()
    with pytest.raises(KeyboardInterrupt):
        Outer().model_dump_json()


def test_naming_another_model_or_benchmark_leaves_nothing_of_the_inherited_one() -> None:
    study = load_study("own", ["model.name=embedded"])
    assert study.model == load_study("tofu").model
    other = load_study("tofu", ["benchmark.name=tdec"])
    assert other.benchmark == load_study("tdec").benchmark
    assert isinstance(other.early_stopping, AreaHalving)
    assert other.early_stopping.metrics == ("forget", "utility"), "TDEC has no probability of forgotten answers"
    with pytest.raises(UserError, match=r"model\.path"):
        load_study("tofu", ["model.path=somewhere"])


def test_naming_another_early_stopping_takes_what_it_has_not() -> None:
    assert load_study("tofu", ["early_stopping.name=none"]) == load_study("tofu", ["early_stopping=null"])
    asha = load_study("tofu", ["early_stopping.name=mo_asha", "early_stopping.grace=2"]).early_stopping
    assert isinstance(asha, MoAsha)
    assert (asha.grace, asha.metrics) == (2, ("forget", "forget_probability", "utility"))
    for name in ("soul", "soul-full", "methods", "loku-tofu"):
        assert isinstance(load_study(name).early_stopping, NoStopping), "all trials of a comparison have one budget"


def test_naming_or_fixing_takes_the_inherited_settings_that_nothing_reads_beside_it() -> None:
    for name in ("influence", "input_guard"):
        study = load_study("tofu", [f"run.objective.name={name}"])
        assert not study.run.keys() & {"optimizer", "adapter", "schedule"}
        assert not [key for key in study.space if key.startswith(("optimizer.", "adapter.", "schedule."))]
    assert "adapter.rank" not in load_study("tofu", ["run.objective.name=retrain"]).space
    forgetting = load_study("tofu", ["run.objective.retain=none"])
    assert "objective.gamma" not in forgetting.space
    assert "objective.gamma" in load_study("tofu", ["run.objective.retain=kl"]).space
    assert "optimizer.hessian_interval" not in load_study("tofu", ["run.optimizer.hessian=squared_gradient"]).space
    with pytest.raises(UserError, match=r"run\.objective\.gamma: needs objective\.retain nll or kl, given none"):
        load_study("tofu", ["run.objective.retain=none", "run.objective.gamma=2"])
    with pytest.raises(UserError, match=r"run\.optimizer\.name: influence reads no optimizer"):
        load_study("tofu", ["run.objective.name=influence", "run.optimizer.name=lion"])
