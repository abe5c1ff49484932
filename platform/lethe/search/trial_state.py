"""What a trial's last report says about it: the state that Optuna is told, and why.

Trials that are no results: ended with their session and asked again, or proposed twice, or another study's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lethe.search.objectives import ObjectiveSpace
from optuna.trial import FrozenTrial, TrialState, create_trial

INTERRUPTED = "interrupted"
"""The verdict of a trial that ended for reasons of its session: it does not count and is proposed again."""


@dataclass(frozen=True)
class TrialOutcome:
    """`values` are the objectives in the objectives's order where all are finite, whatever the state."""

    name: str
    state: TrialState
    values: list[float] | None
    reason: str = ""


def trial_outcome(report: Mapping[str, Any], objectives: ObjectiveSpace) -> TrialOutcome:
    """COMPLETE for a full-budget run with every objective finite; PRUNED for one that was stopped; else FAIL.

    `verdict` says how the run ended; a report without one is the last that a stopped trial sent. A complete run may
    carry `full_budget: false`, which makes it a stopped one. Other verdicts (diverged, out_of_memory, infeasible,
    error, lost) are results of the trial, with their `reason`.
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


DUPLICATE = "duplicate"
"""The verdict of a proposal that equals an earlier one: another was asked for in its place."""


def is_duplicate(trial: FrozenTrial) -> bool:
    """Ended because it had been proposed before."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("verdict") == DUPLICATE


def is_interrupted(trial: FrozenTrial) -> bool:
    """Ended by `StudyStore.interrupted`: a copy of it is asked again, so that it is no result."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("verdict") == INTERRUPTED


def counts(trial: FrozenTrial) -> bool:
    """Whether it is one of a budget's trials that are done."""
    known = "from" in trial.user_attrs  # an earlier study's, to learn from
    return trial.state.is_finished() and not (is_interrupted(trial) or is_duplicate(trial) or known)


def repeat(trial: FrozenTrial) -> FrozenTrial:
    """A WAITING copy, which the next `ask` takes up.

    What `Study.enqueue_trial` makes, but with what the sampler noted: without its generation a trial is in none of
    NSGA-II's populations. `fixed_params` are there if it was a repeat itself, ended before they were suggested.
    """
    noted = {key: value for key, value in trial.system_attrs.items() if not key.startswith("constraints")}
    params = {**noted.pop("fixed_params", {}), **trial.params}
    return create_trial(
        state=TrialState.WAITING,
        system_attrs={**noted, "fixed_params": params},
        user_attrs={**_kept(trial), "repeats": trial.number},
    )


def _kept(trial: FrozenTrial) -> dict[str, object]:
    return {key: trial.user_attrs[key] for key in ("index", "first") if key in trial.user_attrs}


def not_repeated(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Interrupted trials whose copy was never made: the session was killed in between."""
    made = {trial.user_attrs.get("repeats") for trial in trials}
    return [trial for trial in trials if is_interrupted(trial) and trial.number not in made]
