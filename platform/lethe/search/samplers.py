"""Optuna's samplers and storages, as this platform uses them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage

from lethe.config.search import Search
from lethe.errors import BadInput

_SQLITE = "sqlite:///"


def make_sampler(search: Search, proposal: int) -> BaseSampler:
    """The sampler for one proposal, its randomness drawn from (seed, proposal).

    A sampler that lived as long as its process would, after a resume, draw its first numbers again and propose what
    it proposed before. Nothing else is lost: what samplers know is in the trials.
    """
    seed = int(np.random.SeedSequence([search.seed, proposal]).generate_state(1)[0])
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


def open_storage(url: str | None) -> BaseStorage:
    """Optuna's storage at an SQLAlchemy URL; None is memory, for previews and tests.

    SQLite keeps a write-ahead log without a sync per commit (sqlite.org/wal.html): a killed process loses nothing, a
    power cut at most the last trials' records, and never the file. Optuna commits some ten times per trial.
    """
    if url is None:
        return InMemoryStorage()
    options: dict[str, Any] = {}
    try:
        if url.startswith(_SQLITE):
            Path(url.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            options["pool_events"] = [(_write_ahead, "connect")]
        return RDBStorage(url, engine_kwargs=options)
    except (OSError, ImportError, *_database_errors()) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"the study's storage {url} cannot be opened: {reason}") from None


def _write_ahead(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _database_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, optuna.exceptions.StorageInternalError)
