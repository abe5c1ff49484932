"""Scaling studies as configuration: points, and every mistake as one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lethe.cli.scaling import main
from lethe.config.run import Recipe
from lethe.config.scaling import load_scaling
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.models.transformer import Transformer
from lethe.scaling.design import check_memory, cost_points, predicted_memory, search_points
from lethe.scaling.memory import Layout, offloaded, states
from lethe.scaling.plan import GPUS, Question, options
from lethe.scaling.study_cost import MODELS, study_parts


def test_every_point_once() -> None:
    study = load_scaling("tofu")
    points = cost_points(study)
    settings = [tuple(p.labels.values())[1:] for p in points]
    assert len(set(settings)) == len(settings) == 22
    assert {(size, arm) for size, arm, rows, workers, stage in settings if (rows, workers, stage) == (4, 1, 0)} == {
        (size, arm) for size in study.scaling.sizes for arm in ("sophia", "adamw")
    }
    others = {s[2:] for s in settings} - {(4, 1, 0)}
    assert others == {(1, 1, 0), (2, 1, 0), (8, 1, 0), (16, 1, 0), (4, 1, 2), (4, 2, 0), (4, 2, 2), (8, 2, 0)}
    assert [p.workers for p in points] == sorted(p.workers for p in points), "another group of workers is started once"
    recipes = {p.arm: p.recipe for p in points}
    assert (recipes["sophia"].optimizer.name, recipes["adamw"].optimizer.name) == ("sophia", "adamw")


def test_models_have_the_parameters_that_their_sizes_name() -> None:
    named = {"0.1M": 1e5, "0.3M": 3e5, "1M": 1e6, "2M": 2e6, "4M": 4e6, "8M": 8e6, "16M": 1.6e7}
    for name, model in load_scaling("tofu-full").models().items():
        assert Transformer.of_embedded(model).parameters == pytest.approx(named[name], rel=0.11)


def test_searches_are_equal_but_for_the_model() -> None:
    study = load_scaling("tofu", ["scaling.quality.forget=[forget05, forget10]"])
    searches = search_points(study)
    assert [(p.size, p.forget) for p in searches] == [
        ("0.3M", "forget10"), ("1M", "forget10"), ("4M", "forget10"), ("1M", "forget05"),
    ]  # fmt: skip
    first, *others = searches
    assert first.study.search.sampler == "random"
    assert first.study.search.trials == 6
    for other in others:
        assert other.study.space == first.study.space
        assert other.study.search == first.study.search
        assert other.study.model != first.study.model


def test_the_default_size_is_the_sweeps_own() -> None:
    """So that its models are made once for both."""
    assert load_scaling("tofu").models()["1M"] == load_study("tofu").model


def test_a_longer_design_is_another_study() -> None:
    assert load_scaling("tofu").identity() == load_scaling("scaling-tofu", ["tracking.enabled=false"]).identity()
    assert load_scaling("tofu").identity() != load_scaling("tofu", ["scaling.cost.steps=30"]).identity()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["scaling.sizes.0={hidden_size: 8}"], ["scaling.sizes", "hidden_size", "16"]),
        (["scaling.base=3M"], ["scaling.base", "'3M'", "choose from 0.1M"]),
        (["scaling.quality.sizes=[1M, 7B]"], ["scaling.quality.sizes", "'7B'", "4M"]),
        (["scaling.quality.arms=[sofia]"], ["scaling.quality.arms", "did you mean 'sophia'"]),
        (["scaling.cost.workers=[2]"], ["scaling.cost.workers", "an axis of one value, 2"]),
        (["scaling.quality.sizes=[1M]"], ["scaling.quality.sizes", "one value"]),
        (["scaling.cost.batch=[2, 4, 2]"], ["scaling.cost.batch", "2 is named twice"]),
        (["scaling.sizes.5M={hidden_size: 256, layers: 5}"], ["4M and 5M are the same model"]),
        (["scaling.cost.stage=[0, 4]"], ["scaling.cost.stage", "4"]),
        (["scaling.arms.sophia.run.optimizer.name=sofia"], ["scaling.arms.sophia", "sofia", "sophia"]),
        (["scaling.form=cubic"], ["scaling.form", "'cubic'", "offset"]),
        (["scaling.cost.stepps=3"], ["scaling.cost.stepps", "did you mean 'scaling.cost.steps'"]),
        (["compare={arms: {a: {}, b: {}}}"], ["compare", "scaling.arms"]),
    ],
)
def test_each_invalid_design_is_refused_with_its_key(
    overrides: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["tofu", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in named:
        assert word in line


@pytest.mark.parametrize(
    ("dropped", "form", "message"),
    [
        (["2M", "4M", "8M", "16M"], "auto", "3 sizes: a power law needs 4"),
        (["2M", "8M", "16M"], "offset", "4 sizes: a law with an offset needs 5"),
    ],
)
def test_too_few_sizes_are_refused(dropped: list[str], form: str, message: str) -> None:
    gone = [f"scaling.sizes.{size}=null" for size in dropped]
    with pytest.raises(UserError, match=message):
        load_scaling("tofu", [*gone, f"scaling.form={form}", "scaling.quality.sizes=null"])


def test_a_study_without_a_scaling_section_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("extends: tofu\n")
    with pytest.raises(UserError, match="has no section scaling"):
        load_scaling(str(tmp_path / "plain.yaml"))
    with pytest.raises(UserError, match=r"unknown scaling study 'tofuu' .did you mean 'tofu'"):
        load_scaling("tofuu")


def test_sizes_that_do_not_fit_are_refused_before_they_run() -> None:
    study = load_scaling("tofu")
    needs = {p.size: predicted_memory(p) for p in cost_points(study) if (p.workers, p.rows) == (1, 4)}
    assert list(needs.values()) == sorted(needs.values())
    check_memory(study, 4e9)
    with pytest.raises(UserError, match=r"scaling.sizes.16M: 1 worker.* need .* GiB, predicted, and there are"):
        check_memory(study, needs["16M"] - 1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--gpu-memory", "80"], "bytes are wanted"),
        (["--gpu-memory", "80e9", "--answer", "500"], "--answer 500"),
        (["--gpu-memory", "-1"], "--gpu-memory -1: must be above 0"),
        (["--gpu-memory", "80e9", "--quantisation", "nf4"], "--quantisation nf4: adapters train"),
        (
            ["--gpu-memory", "80e9", "--quantisation", "nf4", "--lora-rank", "8", "--offload", "parameters"],
            "--offload parameters: needs stage 3, which shards no base of 4 bits",
        ),
    ],
)
def test_plans_with_impossible_numbers_are_refused(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--model-params", "7e9", *arguments]) == 2
    assert named in capsys.readouterr().err


def test_a_plan_has_stage_memory_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model-params", "7e9", "--gpu-memory", "80e9"]) == 0
    output = capsys.readouterr().out
    for words in ("fewest devices: 4, ZeRO stage 1", "hours (extrapolation)", "Assumed:", "Not known:"):
        assert words in output
    assert main(["plan", "--model-params", "70e9", "--gpu-memory", "8e9"]) == 0
    assert "does not fit on 64 devices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "engine", "advice"),
    [
        ([], {}, "fewest devices: 8, ZeRO stage 3"),
        (["--offload", "optimizer"], {"offload": "optimizer", "stage": 2}, "fewest devices: 1, ZeRO stage 2"),
        (
            ["--offload", "parameters", "--gradient-checkpointing"],
            {"offload": "parameters", "stage": 3, "gradient_checkpointing": True},
            "fewest devices: 1, ZeRO stage 3",
        ),
        (
            ["--quantisation", "nf4", "--lora-rank", "16"],
            {"quantisation": "nf4"},
            "fewest devices: 1, ZeRO stage 0",
        ),
    ],
)
def test_a_plan_takes_what_an_engine_takes_and_has_its_memory(
    given: list[str], engine: dict[str, Any], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--model-params", "7e9", "--gpu-memory", "24e9", *given]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert advice in printed[3]
    away = [line for line in printed if line.startswith("in the CPU's memory")]
    assert bool(away) == ("offload" in engine)
    if not engine:
        return
    # The dry run of a study with this engine goes by the same numbers.
    adapter = {"name": "lora", "rank": 16} if "nf4" in given else {"name": "full"}
    recipe = Recipe.model_validate({"engine": {"device": "cuda", "precision": "bf16", **engine}, "adapter": adapter})
    first = next(line.split() for line in printed if line.split()[:1] == ["1"])
    held = states(Transformer.of_size(7e9), Layout.of(recipe)).total
    assert float(first[5]) == pytest.approx(held / 1e9, abs=0.06)
    if away:
        gigabytes = offloaded(Transformer.of_size(7e9), Layout.of(recipe)) / 1e9
        assert float(away[0].split()[4]) == pytest.approx(gigabytes, rel=0.01)


def test_checkpointing_costs_time_and_saves_activations() -> None:
    plain, saving = (
        next(iter(options(Question(Transformer.of_size(7e9), 80e9, rank=8, rows=8, checkpointing=on))))
        for on in (False, True)
    )
    assert saving.peak.activations < plain.peak.activations / 5
    question = Question(Transformer.of_size(7e9), 80e9, rank=8)
    assert replace(question, checkpointing=True).flops / question.flops == pytest.approx(1.5, abs=0.05)


def test_memory_shrinks_with_adapters_workers_and_shorter_rows() -> None:
    shape = Transformer.of_size(7e9)
    full, lora = (list(options(Question(shape, 80e9, rank=rank))) for rank in (None, 8))
    assert lora[0].workers == 1 < full[0].workers, "adapters have few states"
    for found in (full, lora):
        assert all(option.peak.total < 80e9 for option in found)
        totals = [option.peak.states.total for option in found if option.stage == found[0].stage]
        assert totals == sorted(totals, reverse=True)
    longer = next(iter(options(Question(shape, 80e9, rank=8, length=2048, answer=1024))))
    assert longer.micro < lora[0].micro


def test_a_studys_hours_are_the_sum_of_parts_that_say_what_they_stand_on(capsys: pytest.CaptureFixture[str]) -> None:
    memory, rate, bandwidth = GPUS["H100 SXM 80 GB"]
    question = Question(MODELS["Llama 3.1 8B"], memory, rate=rate, bandwidth=bandwidth)
    assert question.shape.parameters == 8_030_261_248, "as published"
    *parts, together = study_parts(question)
    assert together.hours == pytest.approx(tuple(sum(part.hours[end] for part in parts) for end in (0, 1)))
    assert all(0 < part.hours[0] < part.hours[1] and part.stands_on for part in parts)
    hours = {part.name: part.hours for part in parts}
    # 24 trials of 65 steps of 64 rows of 256 tokens, 6 FLOPs a parameter and token, at half of the rate
    assert hours["training"][0] == pytest.approx(24 * 65 * 64 * 256 * 6 * 8.03e9 / (rate / 2) / 3600, rel=0.1)
    # 32 batches of 128 tokens: 16 GB at 30 % of 3.35 TB/s take 16 ms, which is less than 1 ms a layer
    assert hours["answers"][1] == pytest.approx(24 * 32 * 128 * 32e-3 / 3600)
    assert main(["plan", "--model-params", "8e9", "--gpu-memory", "80e9", "--bandwidth", "1e10"]) == 0
    assert "of 0.01 TB/s, or waits" in capsys.readouterr().out
    assert main(["plan", "--model-params", "8e9", "--gpu-memory", "80e9", "--bandwidth", "0"]) == 2
    assert "--bandwidth 0: must be above 0" in capsys.readouterr().err
