"""Optuna's samplers, as this platform uses them."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from lethe.config.search import Search
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler


def make_sampler(search: Search, proposal: int, attempt: int = 0) -> BaseSampler:
    """The sampler for one proposal, its randomness drawn from (seed, proposal, attempt).

    A sampler that lived as long as its process would, after a resume, draw its first numbers again and propose what
    it proposed before. Nothing else is lost: what samplers know is in the trials.
    """
    entropy = [search.seed, proposal, *([attempt] if attempt else [])]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    with warnings.catch_warnings():  # `group` is marked experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.sampler:
            case "tpe":
                # Grouped: conditional parameters are modelled jointly with those that they appear with.
                return TPESampler(
                    n_startup_trials=search.startup_trials, seed=seed, multivariate=True, group=True, constant_liar=True
                )
            case "nsga2":
                return NSGAIISampler(population_size=search.population, seed=seed)
            case "gp":
                return GPSampler(n_startup_trials=search.startup_trials, seed=seed, warn_independent_sampling=False)
            case "random":
                return RandomSampler(seed=seed)
