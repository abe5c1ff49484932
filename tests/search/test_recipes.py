"""Recipes from a space: what a trial's variant lacks is neither suggested nor set."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from lethe.config.base import field_condition, flatten
from lethe.config.objective import Kl, Npo, RetainTerm
from lethe.config.run import Recipe
from lethe.config.space import Choice, Parameter, Scalar, Suggest, assemble, build_recipe, variants
from lethe.config.study import Study


def parts(study: Study) -> tuple[dict[str, Any], Mapping[str, Parameter]]:
    return study.run, study.space


def picking(asked: list[str], **names: Scalar) -> Suggest:
    """Suggest the named variants and every low end; note what was asked."""

    def suggest(name: str, parameter: Parameter) -> Scalar:
        asked.append(name)
        if name.endswith(".name"):
            return names[name.removesuffix(".name")]
        return parameter.choices[-1] if isinstance(parameter, Choice) else parameter.low

    return suggest


def test_variant_names_are_suggested_first_then_active_parameters_in_a_fixed_order(
    make_study: Callable[..., Study],
) -> None:
    asked: list[str] = []
    recipe = build_recipe(*parts(make_study()), picking(asked, optimizer="sophia", adapter="lora"))
    assert asked == [
        "adapter.name",
        "optimizer.name",
        "adapter.rank",
        "optimizer.clip_threshold",
        "optimizer.hessian_interval",
        "optimizer.learning_rate",
    ]
    assert (recipe.adapter.rank, recipe.optimizer.clip_threshold, recipe.optimizer.hessian_data) == (8, 0.01, "retain")


def test_defaults_and_parameters_that_the_variant_lacks_are_dropped(make_study: Callable[..., Study]) -> None:
    asked: list[str] = []
    recipe = build_recipe(*parts(make_study()), picking(asked, optimizer="adamw", adapter="full"))
    assert asked == ["adapter.name", "optimizer.name", "optimizer.learning_rate"]
    assert recipe.optimizer.name == "adamw"
    assert recipe.optimizer.eps == 1e-9
    assert recipe == Recipe.model_validate(recipe.model_dump())


def test_parameters_that_the_variant_does_not_use_are_neither_suggested_nor_in_the_run(
    make_study: Callable[..., Study],
) -> None:
    """SOUL's released Sophia samples no labels, so how often and on which rows has no meaning there."""
    space = {
        "optimizer.hessian": {"type": "choice", "choices": ["gnb", "squared_gradient"]},
        "optimizer.hessian_interval": {"type": "int", "low": 3, "high": 25},
    }
    study = make_study(run={"optimizer": {"name": "sophia", "hessian_data": "retain"}}, space=space)
    asked: list[str] = []
    released = build_recipe(study.run, study.space, picking(asked))
    assert asked == ["optimizer.hessian"]
    assert not any("hessian_" in key for key in flatten(released))
    sampled = build_recipe(study.run, study.space, lambda name, p: "gnb" if name.endswith("hessian") else p.low)
    assert (sampled.optimizer.hessian_interval, sampled.optimizer.hessian_data) == (3, "retain")
    stray = released.optimizer.model_copy(update={"hessian_interval": 7})
    assert stray.digest() == released.optimizer.digest()
    assert Recipe.model_validate(released.model_dump()) == released


def test_a_field_is_suggested_after_the_field_it_depends_on() -> None:
    needing = {
        (family, name, field, other, values[0])
        for family in Recipe.model_fields
        for name, model in variants(family).items()
        for field in model.model_fields
        for other, values in field_condition(model, field).items()
    }
    assert ("objective", "npo", "gamma", "retain", "nll") in needing
    for family, name, field, other, value in needing:
        space = {f"{family}.{key}": Choice(choices=(0, 1)) for key in (field, other)}
        asked: list[str] = []
        assemble({family: {"name": name}}, space, lambda key, _: asked.append(key) or value)  # noqa: B023
        assert asked == [f"{family}.{other}", f"{family}.{field}"]


def test_without_a_retain_term_its_weight_is_not_searched(make_study: Callable[..., Study]) -> None:
    space = {
        "objective.gamma": {"type": "float", "low": 0.5, "high": 8.0},
        "objective.retain": {"type": "choice", "choices": ["nll", "kl", "none"]},
    }
    study = make_study(run={"objective": {"name": "npo", "beta": 0.3}}, space=space)
    for retain, weight in (("kl", {"objective.gamma": 2.0}), ("none", {})):
        recipe = build_recipe(study.run, study.space, lambda name, _, r=retain: r if name.endswith("retain") else 2.0)
        wanted = {"objective.name": "npo", "objective.beta": 0.3, "objective.retain": retain, **weight}
        wanted["objective.reduction"] = "sequence_sum"
        assert {k: v for k, v in flatten(recipe).items() if k.startswith("objective.")} == wanted
        assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_a_retain_term_enters_the_digest_where_it_is_not_the_default() -> None:
    assert Npo(retain="nll").model_dump() == {"name": "npo", "gamma": 1.0, "beta": 0.1, "reduction": "sequence_sum"}
    assert Kl(retain="kl").model_dump() == {"name": "kl", "gamma": 1.0}
    assert len({Npo(retain=retain).digest() for retain in get_args(RetainTerm)}) == 3
    assert Npo(retain="none", gamma=3).digest() == Npo(retain="none").digest()


def test_plain_fields_can_be_searched(make_study: Callable[..., Study]) -> None:
    study = make_study(
        run={"schedule": {"warmup": 0.1}},
        space={"seed": {"type": "int", "low": 3, "high": 9}, "schedule.epochs": {"type": "int", "low": 2, "high": 4}},
    )
    recipe = build_recipe(study.run, study.space, picking([]))
    assert (recipe.seed, recipe.schedule.epochs, recipe.schedule.warmup) == (3, 2, 0.1)
    assert build_recipe(*parts(make_study(run={}, space={})), picking([])) == Recipe()


def test_a_value_out_of_bounds_is_refused(make_study: Callable[..., Study]) -> None:
    with pytest.raises(ValidationError):
        build_recipe(*parts(make_study()), lambda name, _: "adamw" if name == "optimizer.name" else "full")


def test_flatten_gives_scalars_by_dotted_name() -> None:
    flat = flatten(Recipe())
    assert flat["optimizer.name"] == "adamw"
    assert flat["optimizer.betas"] == "[0.9,0.999]"
    assert flat["seed"] == 0
    assert all(value is None or isinstance(value, str | int | float | bool) for value in flat.values())


def test_gradient_ascent_has_no_gamma(make_study: Callable[..., Study]) -> None:
    """A space over objective.gamma skips it, and fixed values that only others have are dropped."""
    space = {
        "objective.name": {"type": "choice", "choices": ["gradient_ascent", "simnpo"]},
        "objective.gamma": {"type": "float", "low": 0.5, "high": 2},
    }
    study = make_study(run={"objective": {"beta": 3.0}}, space=space)
    asked: list[str] = []
    ascent = build_recipe(study.run, study.space, picking(asked, objective="gradient_ascent"))
    assert flatten(ascent.objective) == {"name": "gradient_ascent"}
    assert asked == ["objective.name"]
    simnpo = build_recipe(study.run, study.space, lambda name, p: "simnpo" if name.endswith("name") else p.low)
    assert flatten(simnpo.objective) == {"name": "simnpo", "gamma": 0.5, "beta": 3.0, "delta": 0.0}
