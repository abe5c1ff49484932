"""Optuna's study for one of ours: found or created under its name, and known to be the same."""

from __future__ import annotations

import warnings

import optuna
from optuna.storages import BaseStorage

from lethe.config.study import Study
from lethe.errors import BadInput


def open_study(study: Study, storage: BaseStorage, name: str) -> optuna.Study:
    """The study with its points to try first enqueued. Raises BadInput for a name that another study has."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[goal.direction for goal in study.objectives.values()],
        load_if_exists=True,
    )
    _identify(found, study)
    _enqueue_first(found, study)
    return found


def _identify(found: optuna.Study, study: Study) -> None:
    identity, known = study.identity(), found.user_attrs.get("identity")
    if known is None:
        found.set_user_attr("identity", identity)
        with warnings.catch_warnings():  # marked experimental; optuna-dashboard and the plots show the names
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found.set_metric_names(list(study.objectives))
    elif known != identity:
        raise BadInput(
            f"study {found.study_name} was begun with another space, run, objectives or seed ({known}, now {identity}): "
            "resume it as it was, or choose another name"
        )


def _enqueue_first(found: optuna.Study, study: Study) -> None:
    """Each point once, whatever was killed in between."""
    made = {trial.user_attrs.get("first") for trial in found.get_trials(deepcopy=False)}
    for number, point in enumerate(study.search.first):
        if number not in made:
            found.enqueue_trial(dict(point), user_attrs={"first": number})
