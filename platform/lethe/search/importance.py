"""Importance of searched parameters for each objective, by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""

from __future__ import annotations

import warnings

import optuna
from optuna.trial import FrozenTrial, TrialState

from lethe.search.study_store import StudyStore

MIN_TRIALS = 10  # complete ones; an assumption: the best quarter is then three
QUANTILE = 0.25


def importances(store: StudyStore) -> dict[str, dict[str, float]]:
    """Return for each objective the parameters with their shares of the importance, which add up to 1, largest first.

    A parameter is important if its values in the best quarter of the complete trials are spread differently than in
    all of them. One that only some trials have counts by those (conditional PED-ANOVA). Empty with fewer than
    `MIN_TRIALS` complete trials.
    """
    complete = [trial for trial in store.trials() if trial.state == TrialState.COMPLETE]
    if len(complete) < MIN_TRIALS:
        return {}
    # The import takes more than a second, and is needed only when a study ends.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    directions = [goal.direction for goal in store.study.objectives.values()]
    own = optuna.create_study(directions=directions)  # without the trials of a warm start
    own.add_trials(complete)
    by_objective = {}
    with warnings.catch_warnings():  # the evaluator warns on every call that it minimises
        warnings.simplefilter("ignore")
        for i, (name, direction) in enumerate(zip(store.study.objectives, directions, strict=True)):

            def low_is_good(trial: FrozenTrial, i: int = i, sign: int = 1 if direction == "minimize" else -1) -> float:
                return sign * float(trial.values[i])

            shares = get_param_importances(
                own, evaluator=PedAnovaImportanceEvaluator(target_quantile=QUANTILE), target=low_is_good
            )
            by_objective[name] = {key: round(float(share), 4) for key, share in shares.items()}
    return by_objective
