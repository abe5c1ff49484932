"""The state of an Optuna trial: how a trial's last report ends it, and which trials are no results of the study.

Besides results, Optuna's storage holds trials that were interrupted with their session and are proposed again,
proposals that equal an earlier one, and trials of another study to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from lethe.search.objectives import ObjectiveSpace

INTERRUPTED = "interrupted"
"""The verdict of a trial that ended for reasons of its session: it does not count and is proposed again."""
DUPLICATE = "duplicate"
"""The verdict of a proposal that equals an earlier one: another was asked for in its place."""


@dataclass(frozen=True)
class TrialOutcome:
    """The end of a trial: its verdict's `name`, the `state` that Optuna is told, and the objectives [k] if all of them
    are finite, whatever the state."""

    name: str
    state: TrialState
    values: list[float] | None
    reason: str = ""


def trial_outcome(report: Mapping[str, Any], objectives: ObjectiveSpace) -> TrialOutcome:
    """Return the outcome of a trial by its last report: COMPLETE for a full-budget run with every objective finite,
    PRUNED for one that was stopped, else FAIL.

    `verdict` in the report says how the run ended; a report without one is the last that a stopped trial sent. A
    complete run may carry `full_budget: false`, which makes it a stopped one. Other verdicts (diverged, out_of_memory,
    infeasible, error, lost) are results of the trial, with their `reason`.
    """
    name = str(report.get("verdict") or "stopped")
    reason = str(report.get("reason") or "")[:1000]
    values = objectives.values(report)
    bad = [f"{n} is {report.get(n)}" for n, v in zip(objectives.names, values, strict=True) if not math.isfinite(v)]
    finite = None if bad else values
    if name == "complete" and bad:
        return TrialOutcome("non_finite", TrialState.FAIL, None, "; ".join(bad))
    if name == "complete" and report.get("full_budget", True):
        return TrialOutcome(name, TrialState.COMPLETE, finite, reason)
    if name in ("complete", "stopped"):
        return TrialOutcome("stopped", TrialState.PRUNED, finite, reason)
    return TrialOutcome(name, TrialState.FAIL, finite, reason)


def is_duplicate(trial: FrozenTrial) -> bool:
    """Return whether the trial was ended because its recipe had been proposed before."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("verdict") == DUPLICATE


def is_interrupted(trial: FrozenTrial) -> bool:
    """Return whether the trial was ended by `StudyStore.interrupted`: a copy of it is proposed again."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("verdict") == INTERRUPTED


def counts(trial: FrozenTrial) -> bool:
    """Return whether the trial has ended and counts towards the study's budget of trials."""
    of_earlier_study = "from" in trial.user_attrs
    return trial.state.is_finished() and not (is_interrupted(trial) or is_duplicate(trial) or of_earlier_study)


def repeat(trial: FrozenTrial) -> FrozenTrial:
    """Return a WAITING copy of an interrupted trial, to be added to the study: the next `ask` takes it up."""
    # As `Study.enqueue_trial`, but with the sampler's own attributes: without its generation a trial would be in none
    # of NSGA-II's populations. `fixed_params` exist if the trial was a copy itself, interrupted before they were used.
    attributes = {key: value for key, value in trial.system_attrs.items() if not key.startswith("constraints")}
    params = {**attributes.pop("fixed_params", {}), **trial.params}
    inherited: dict[str, Any] = {key: trial.user_attrs[key] for key in ("index", "first") if key in trial.user_attrs}
    return create_trial(
        state=TrialState.WAITING,
        system_attrs={**attributes, "fixed_params": params},
        user_attrs={**inherited, "repeats": trial.number},
    )


def not_repeated(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the interrupted trials without a copy: their session was killed before it could add one."""
    repeated = {trial.user_attrs.get("repeats") for trial in trials}
    return [trial for trial in trials if is_interrupted(trial) and trial.number not in repeated]
