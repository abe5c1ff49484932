"""How much each parameter decides about each objective: PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import warnings

import optuna
from lethe.search.study_store import StudyStore
from optuna.trial import TrialState

MIN_TRIALS = 10  # complete trials; a guess: the best quarter is then three
QUANTILE = 0.25


def importances(store: StudyStore) -> dict[str, dict[str, float]]:
    """By objective, parameters by their share of the importance, largest first: how differently the best quarter of
    the complete trials is spread over a parameter's values than all of them. Empty below `LEAST` trials.

    A parameter that only some trials have counts by those (conditional PED-ANOVA).
    """
    done = [trial for trial in store.trials() if trial.state == TrialState.COMPLETE]
    if len(done) < MIN_TRIALS:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # more than a second, in the end

    directions = [goal.direction for goal in store.study.objectives.values()]
    own = optuna.create_study(directions=directions)  # without the trials of a warm start
    own.add_trials(done)
    signs = [1 if direction == "minimize" else -1 for direction in directions]  # the evaluator wants low targets
    found = {}
    with warnings.catch_warnings():  # it says on every call that it minimises
        warnings.simplefilter("ignore")
        for i, name in enumerate(store.study.objectives):
            shares = get_param_importances(
                own,
                evaluator=PedAnovaImportanceEvaluator(target_quantile=QUANTILE),
                target=lambda trial, i=i: signs[i] * trial.values[i],
            )
            found[name] = {key: round(float(share), 4) for key, share in shares.items()}
    return found
