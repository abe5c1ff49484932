"""Recipes made from a study's search space, one proposal at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lethe.config.base import Frozen, canonical_json
from lethe.config.run import Recipe
from lethe.config.space import Choice, IntRange, Parameter, Scalar, Suggest, assemble
from lethe.config.study import Study

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution


def build_recipe(study: Study, suggest: Suggest) -> Recipe:
    """Return the recipe with the study's fixed values, and `suggest(name, parameter)` for every parameter that is
    active in this trial: first the names of variants, then the rest in the order of their names.

    Raises pydantic's ValidationError for values that break a rule across fields; all have been suggested by then.
    """
    return Recipe.model_validate(assemble(study.run, study.space, suggest))


def from_trial(trial: Trial) -> Suggest:
    """Return a function that suggests values by an Optuna trial, define-by-run: Optuna records which parameters this
    trial has."""

    def suggest(name: str, parameter: Parameter) -> Scalar:
        if isinstance(parameter, Choice):
            value: Scalar = trial.suggest_categorical(name, parameter.choices)
            return value
        if isinstance(parameter, IntRange):
            return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)

    return suggest


def rebuild(study: Study, params: Mapping[str, Scalar]) -> Recipe:
    """Return the recipe that the suggested values `params` made. Raises KeyError where `params` lacks a value that the
    study asks for, ValidationError as `build_recipe`."""
    return build_recipe(study, lambda name, _: params[name])


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the Optuna distribution that `from_trial` suggests `parameter` from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, IntRange):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def flatten(recipe: Frozen) -> dict[str, Scalar]:
    """Return a recipe as dotted names and plain values, for a table or a tracker; a list becomes its JSON text."""
    return dict(_leaves(recipe.model_dump(mode="json"), ""))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Scalar]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, canonical_json(value) if isinstance(value, list) else value
