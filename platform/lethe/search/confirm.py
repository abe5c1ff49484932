"""What fresh seeds say of a front: means and spreads, and who stays on it. Values alone, no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lethe.records import Confirmation, TrialRecord
from lethe.search.frame import Frame
from lethe.search.front import front_hypervolume, name_front
from lethe.search.pareto import dominates

Trials = tuple[TrialRecord, ...]


def confirmed(trials: Trials, runs: Mapping[int, Sequence[TrialRecord]], frame: Frame) -> Trials:
    """The same trials; those with `runs`, by trial number, have a `confirmation`.

    The run that the search found is left out of the means: it was chosen for its values, so they are too good.
    """
    found = {number: _averaged(tuple(repeats), frame) for number, repeats in runs.items()}
    means = {number: frame.values(c.mean) for number, c in found.items() if not c.reason}
    for number, values in means.items():
        reason = _why_not(number, means, frame)
        found[number] = found[number].model_copy(update={"confirmed": not reason, "reason": reason})
    return tuple(
        trial.model_copy(update={"confirmation": found[trial.number]}) if trial.number in found else trial
        for trial in trials
    )


def names_by_means(trials: Trials, frame: Frame) -> dict[str, int]:
    """The aliases of the confirmed members by their means, as `name_front` gives them; {} where none is."""
    return name_front(_means(trials), frame)


def hypervolume_of_means(trials: Trials, frame: Frame) -> float:
    """Of what is left of the front; 0 where nothing is."""
    return front_hypervolume(_means(trials), frame)


def _means(trials: Trials) -> Trials:
    members = [(trial, trial.confirmation) for trial in trials if trial.confirmation and trial.confirmation.confirmed]
    return tuple(trial.model_copy(update={"metrics": c.mean}) for trial, c in members)


def _averaged(runs: Trials, frame: Frame) -> Confirmation:
    """Means and sample deviations of the complete runs."""
    values = np.array([frame.values(run.metrics) for run in runs if run.verdict == "complete"], dtype=float)
    broken = next((run for run in runs if run.verdict != "complete"), None)
    reason = f"the run with seed {broken.params['seed']}: {broken.verdict}" if broken else ""
    if not len(values):
        return Confirmation(runs=runs, reason=reason or "no run")
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(frame.names), np.nan)
    means = dict(zip(frame.names, values.mean(axis=0).tolist(), strict=True))
    return Confirmation(
        runs=runs, mean=means, spread=dict(zip(frame.names, spread.tolist(), strict=True)), reason=reason
    )


def _why_not(number: int, means: Mapping[int, list[float]], frame: Frame) -> str:
    """Why a member's mean is not on the front of all members' means; "" where it is."""
    if not frame.feasible([means[number]])[0]:
        below = [name for name, by in frame.violations(means[number]).items() if by > 0]
        return f"mean {' and '.join(below)} not better than the floor" if below else "its means are not numbers"
    feasible = {other: values for other, values in means.items() if frame.feasible([values])[0]}
    beaten = [n for n, values in feasible.items() if dominates(values, means[number], frame.directions)]
    return f"the mean of trial {beaten[0]} is better" if beaten else ""
