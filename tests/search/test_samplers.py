"""Every sampler that a study can name is implemented and proposes alike for equal seeds."""

from __future__ import annotations

import optuna
import pytest

from lethe.config.search import Sampler, Search
from lethe.search.samplers import SAMPLERS, make_sampler

each = pytest.mark.parametrize("name", Sampler.registered)


def test_every_configuration_has_its_sampler() -> None:
    assert set(SAMPLERS.all()) == set(Sampler.registered.values())


def proposals(name: str, seed: int) -> list[float]:
    """Eight proposals in [0, 1], each by a sampler of its own, with the square as the result."""
    study = optuna.create_study()
    search = Search(sampler=name, seed=seed, startup_trials=2, population=2)
    found = []
    for number in range(8):
        study.sampler = make_sampler(search, number)
        trial = study.ask()
        found.append(trial.suggest_float("x", 0, 1))
        study.tell(trial, found[-1] ** 2)
    return found


@each
def test_equal_seeds_propose_alike_and_other_seeds_do_not(name: str) -> None:
    assert proposals(name, 1) == proposals(name, 1)
    assert proposals(name, 1) != proposals(name, 2)


@each
def test_proposals_lie_in_the_range_and_differ(name: str) -> None:
    found = proposals(name, 3)
    assert all(0 <= x <= 1 for x in found)
    assert len(set(found)) > 1
