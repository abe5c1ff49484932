"""Warm start: trials of an earlier study that the sampler learns from, and that are no results of this study."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from lethe.config.run_and_space import outside
from lethe.config.space import Choice, IntRange, Parameter, rebuild
from lethe.config.study import Study
from lethe.errors import UserError, unknown_name
from lethe.search.objectives import ObjectiveSpace
from lethe.search.storages import open_storage, storage_url
from lethe.search.trial_state import counts

KEY = "search.warm_start"


def check_storage(study: Study) -> None:
    """Raise UserError, before anything starts, for a storage that cannot be opened and for an earlier study that
    `earlier_trials` refuses."""
    storage = open_storage(storage_url(study.search))
    if study.search.warm_start:
        earlier_trials(study, storage)


def add_earlier_trials(own: optuna.Study, study: Study, objectives: ObjectiveSpace, storage: BaseStorage) -> None:
    """Add the trials of the study that `study.search.warm_start` names to `own`, each once: the user attribute `from`
    says which trial it was."""
    added = {trial.user_attrs.get("from") for trial in own.get_trials(deepcopy=False)}
    for trial in earlier_trials(study, storage):
        origin = f"{study.search.warm_start}/{trial.number}"
        if origin not in added:
            own.add_trial(_copy(trial, study, objectives, origin))


def earlier_trials(study: Study, storage: BaseStorage) -> list[FrozenTrial]:
    """Return the earlier study's complete and stopped trials that this study could have proposed. Ranges may differ:
    trials outside of this study's are left out.

    Raises UserError for a study that does not exist, has other objectives or another space, or has no such trial.
    """
    name = str(study.search.warm_start)
    known = optuna.get_all_study_names(storage)
    if name not in known:
        raise unknown_name(f"study in {KEY}", name, known)
    earlier = optuna.load_study(study_name=name, storage=storage)
    _check_objectives(study, earlier, name)
    trials = [t for t in earlier.get_trials(deepcopy=False) if counts(t) and t.state != TrialState.FAIL]
    for trial in trials:
        _check_space(study, trial, name)
    usable = [trial for trial in trials if _is_possible(study, trial.params)]
    if not usable:
        raise UserError(f"{KEY}: {name} has no finished trial inside this study's space")
    return usable


def _check_objectives(study: Study, earlier: optuna.Study, name: str) -> None:
    theirs = dict(zip(earlier.metric_names or (), (d.name.lower() for d in earlier.directions), strict=False))
    ours = {metric: goal.direction for metric, goal in study.objectives.items()}
    if list(theirs.items()) != list(ours.items()):
        texts = [", ".join(f"{d} {m}" for m, d in goals.items()) or "something unnamed" for goals in (theirs, ours)]
        raise UserError(f"{KEY}: {name} searched to {texts[0]}, this study to {texts[1]}")


def _check_space(study: Study, trial: FrozenTrial, name: str) -> None:
    for key, given in trial.distributions.items():
        if key not in study.space:
            raise UserError(f"{KEY}: {name} searched {key}, which this study does not: choose another study or add it")
        ours = distribution(study.space[key])
        if type(given) is not type(ours) or getattr(given, "choices", None) != getattr(ours, "choices", None):
            raise UserError(f"{KEY}: {name} searched {key} over {given}, this study over {ours}")


def _is_possible(study: Study, params: dict[str, Any]) -> bool:
    """Return whether a trial of this study could have been proposed with these values."""
    if any(outside(study.space[key], value) for key, value in params.items()):
        return False
    try:
        rebuild(study.run, study.space, params)
    except (KeyError, ValidationError):
        return False
    return True


def _copy(trial: FrozenTrial, study: Study, objectives: ObjectiveSpace, origin: str) -> FrozenTrial:
    """Return the trial as one of this study's Optuna study, with this study's distributions and constraints."""
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return create_trial(
        state=trial.state,
        values=values,
        params=trial.params,
        distributions={key: distribution(study.space[key]) for key in trial.params},
        user_attrs={"from": origin},
        constraints=None if values is None else objectives.violations(values),
    )


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the Optuna distribution that a trial's values of `parameter` come from."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, IntRange):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
