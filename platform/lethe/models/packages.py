"""Packages that only some studies need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from lethe.config.optimizer import AnyOptimizer
from lethe.config.run import Quantisation, Recipe
from lethe.errors import UserError

INSTALL = "pip install 'lethe[quantised]'"


def check_quantised(quantisation: Quantisation | None) -> None:
    """Raise UserError where a quantised base is asked for and bitsandbytes is not installed. Imports no torch."""
    if problem := without_package(quantisation):
        raise UserError(problem)


def check_packages(recipes: Iterable[Recipe]) -> None:
    """Raise UserError where a recipe needs a package that is not installed. Imports no torch."""
    for problem in missing_packages(recipes):
        raise UserError(problem)


def missing_packages(recipes: Iterable[Recipe]) -> list[str]:
    """Return the words for every package that recipes need and that is not installed, each once."""
    recipes = list(recipes)
    problems = [without_package(recipe.engine.quantisation) for recipe in recipes]
    problems += [without_optimizer_package(recipe.optimizer) for recipe in recipes]
    return list(dict.fromkeys(filter(None, problems)))


def without_optimizer_package(optimizer: AnyOptimizer) -> str:
    """Return the words for the package that an optimizer needs and that is not installed; nothing where all is here."""
    if optimizer.package is None or find_spec(optimizer.package):
        return ""
    name = getattr(optimizer, "name", "")
    return f"optimizer.name: {name} needs the package {optimizer.package}, which is not installed: {INSTALL}"


def without_package(quantisation: Quantisation | None) -> str:
    """Return the words for the package that a quantised base needs and that is not installed; nothing where all is
    here."""
    if quantisation is None or find_spec("bitsandbytes"):
        return ""
    return (
        f"a base of 4 bits (engine.quantisation: {quantisation}) needs the package bitsandbytes, which is not "
        f"installed: {INSTALL}"
    )
