"""Recipes from a space: what a trial's variant lacks is neither suggested nor set."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from lethe.config.assemble import Suggest
from lethe.config.run import Recipe
from lethe.config.space import Choice, Parameter, Scalar
from lethe.config.study import Study
from lethe.search.space import build_recipe, flatten


def picking(asked: list[str], **names: Scalar) -> Suggest:
    """Suggest the named variants and every low end; note what was asked."""

    def suggest(name: str, parameter: Parameter) -> Scalar:
        asked.append(name)
        if name.endswith(".name"):
            return names[name.removesuffix(".name")]
        return parameter.choices[-1] if isinstance(parameter, Choice) else parameter.low

    return suggest


def test_names_first_then_active_parameters_in_a_fixed_order(make_study: Callable[..., Study]) -> None:
    asked: list[str] = []
    recipe = build_recipe(make_study(), picking(asked, optimizer="sophia", adapter="lora"))
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
    recipe = build_recipe(make_study(), picking(asked, optimizer="adamw", adapter="full"))
    assert asked == ["adapter.name", "optimizer.name", "optimizer.learning_rate"]
    assert recipe.optimizer.name == "adamw" and recipe.optimizer.eps == 1e-9
    assert recipe == Recipe.model_validate(recipe.model_dump())


def test_plain_fields_can_be_searched(make_study: Callable[..., Study]) -> None:
    study = make_study(
        run={"schedule": {"warmup": 0.1}},
        space={"seed": {"type": "int", "low": 3, "high": 9}, "schedule.epochs": {"type": "int", "low": 2, "high": 4}},
    )
    recipe = build_recipe(study, picking([]))
    assert (recipe.seed, recipe.schedule.epochs, recipe.schedule.warmup) == (3, 2, 0.1)
    assert build_recipe(make_study(run={}, space={}), picking([])) == Recipe()


def test_a_value_out_of_bounds_is_refused(make_study: Callable[..., Study]) -> None:
    with pytest.raises(ValidationError):
        build_recipe(make_study(), lambda name, _: "adamw" if name == "optimizer.name" else "full")


def test_flatten_gives_scalars_by_dotted_name() -> None:
    flat = flatten(Recipe())
    assert flat["optimizer.name"] == "adamw" and flat["optimizer.betas"] == "[0.9,0.999]" and flat["seed"] == 0
    assert all(value is None or isinstance(value, str | int | float | bool) for value in flat.values())
