"""The samplers: each a function of the search's settings and a seed that builds one of Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from lethe.config.component import Implementations
from lethe.config.search import Gp, NsgaII, Random, Sampler, Search, Tpe

SAMPLERS: Implementations[Callable[[Search, int], BaseSampler]] = Implementations("lethe.search.samplers")


def make_sampler(search: Search, proposal: int, attempt: int = 0) -> BaseSampler:
    """Build the sampler for one proposal, its randomness drawn from (search.seed, proposal, attempt)."""
    # A sampler that lived as long as its process would, after a resume, draw its first numbers again and propose what
    # it proposed before. Nothing else is lost: a sampler's knowledge is in the trials.
    entropy = [search.seed, proposal, *([attempt] if attempt else [])]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    with warnings.catch_warnings():  # `group` is marked experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS.of(Sampler.registered[search.sampler])(search, seed)


@SAMPLERS.implements(Tpe)
def tpe(search: Search, seed: int) -> TPESampler:
    """Build a TPE sampler. It is grouped: conditional parameters are modelled jointly with those they appear with."""
    return TPESampler(
        n_startup_trials=search.startup_trials, seed=seed, multivariate=True, group=True, constant_liar=True
    )


@SAMPLERS.implements(NsgaII)
def nsga2(search: Search, seed: int) -> NSGAIISampler:
    """Build an NSGA-II sampler with generations of `search.population` trials."""
    return NSGAIISampler(population_size=search.population, seed=seed)


@SAMPLERS.implements(Gp)
def gp(search: Search, seed: int) -> GPSampler:
    """Build a Gaussian process sampler."""
    return GPSampler(n_startup_trials=search.startup_trials, seed=seed, warn_independent_sampling=False)


@SAMPLERS.implements(Random)
def random(search: Search, seed: int) -> RandomSampler:
    """Build a sampler of independent random proposals."""
    return RandomSampler(seed=seed)
