"""The Pareto front of a study's trials: its members, their aliases and its hypervolume.

`mark_front`, `front_aliases` and `representative_trial` look at the values that the search found, `with_confirmations`
and those after it at the means over fresh seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lethe.records import Confirmation, TrialRecord
from lethe.search import pareto
from lethe.search.objectives import ObjectiveSpace
from lethe.search.pareto import Floats

Trials = tuple[TrialRecord, ...]


def mark_front(trials: Trials, objectives: ObjectiveSpace) -> Trials:
    """Return the same trials with `pareto_rank` (0: the front) and `feasible` set. Trials that are not complete with
    finite objectives get None and False. A trial whose marks are right already stays the same object."""
    complete = _complete(trials, objectives)
    marks: dict[int, tuple[int, bool]] = {}
    if complete:
        values = _values(complete, objectives)
        pairs = zip(objectives.ranks(values).tolist(), objectives.feasible(values).tolist(), strict=True)
        marks = {trial.number: pair for trial, pair in zip(complete, pairs, strict=True)}
    return tuple(_marked(trial, *marks.get(trial.number, (None, False))) for trial in trials)


def _marked(trial: TrialRecord, rank: int | None, feasible: bool) -> TrialRecord:
    if (trial.pareto_rank, trial.feasible) == (rank, feasible):
        return trial
    return trial.model_copy(update={"pareto_rank": rank, "feasible": feasible})


def front_aliases(trials: Trials, objectives: ObjectiveSpace) -> dict[str, int]:
    """Return trial numbers of front members by alias: `knee`, and `best-<metric>` for every objective; {} without a
    front."""
    front = [t for t in trials if t.on_front]
    if not front:
        return {}
    values = _values(front, objectives)
    gains = objectives.gains(values)
    best = {f"best-{name}": front[int(gains[:, i].argmax())].number for i, name in enumerate(objectives.names)}
    knee = objectives.knee(values)
    return best if knee is None else {"knee": front[knee].number, **best}


def spread_members(trials: Trials, objectives: ObjectiveSpace, most: int | None) -> Trials:
    """Return the trials of the front; with `most` at most so many, and of equal runs one: the knee, then of those that
    have forgotten the one of most utility, the best in each objective, and always the one farthest from these."""
    front = tuple(trial for trial in trials if trial.on_front)
    if most is None:
        return front
    runs = [trial.run for trial in front]
    front = tuple(trial for place, trial in enumerate(front) if trial.run not in runs[:place])
    if len(front) <= most:
        return front
    values = _values(front, objectives)
    passing = [i for i, trial in enumerate(front) if trial.forgotten and trial.forgotten.forgotten == "yes"]
    useful = sorted(passing, key=lambda i: -front[i].metrics.get("utility", -math.inf))[:1]
    knee = objectives.knee(values)
    first = [*([] if knee is None else [knee]), *useful]
    return tuple(front[i] for i in pareto.spread(values, objectives.directions, first)[:most])


def representative_trial(trials: Trials, objectives: ObjectiveSpace) -> int | None:
    """Return the number of the trial that stands for a whole study: the front's knee, or without a front the complete
    trial whose worst violation of a floor is smallest; None without a complete trial."""
    if "knee" in (aliases := front_aliases(trials, objectives)):
        return aliases["knee"]
    complete = _complete(trials, objectives)
    worst = [max(objectives.violations(row).values(), default=0.0) for row in _values(complete, objectives).tolist()]
    return complete[int(np.argmin(worst))].number if complete else None


def front_hypervolume(trials: Trials, objectives: ObjectiveSpace) -> float:
    """Return the volume between the trials' front and the floors, in gains: 1 would be the oracle's forgetting at the
    start model's utility."""
    complete = _complete(trials, objectives)
    return float(objectives.hypervolume(_values(complete, objectives))) if complete else 0.0


def with_confirmations(trials: Trials, runs: Mapping[int, Sequence[TrialRecord]], objectives: ObjectiveSpace) -> Trials:
    """Return the same trials, those with `runs` of fresh seeds (by trial number) with a `confirmation` made from them.

    A member is confirmed if all of its runs are complete and its mean is on the front of all members' means. The run
    that the search found is left out of the mean: it was chosen for its values, so they are too good.
    """
    confirmations = {number: _averaged(tuple(repeats), objectives) for number, repeats in runs.items()}
    means = {number: objectives.values(c.mean) for number, c in confirmations.items() if not c.reason}
    for number in means:
        reason = _refutation(number, means, objectives)
        update = {"confirmed": not reason, "reason": reason}
        confirmations[number] = confirmations[number].model_copy(update=update)
    return tuple(
        trial.model_copy(update={"confirmation": confirmations[trial.number]})
        if trial.number in confirmations
        else trial
        for trial in trials
    )


def aliases_of_means(trials: Trials, objectives: ObjectiveSpace) -> dict[str, int]:
    """Return `front_aliases` of the confirmed members by their means; {} where no member is confirmed."""
    return front_aliases(_trials_of_means(trials), objectives)


def hypervolume_of_means(trials: Trials, objectives: ObjectiveSpace) -> float:
    """Return `front_hypervolume` of the confirmed members' means; 0 where no member is confirmed."""
    return front_hypervolume(_trials_of_means(trials), objectives)


def _complete(trials: Trials, objectives: ObjectiveSpace) -> list[TrialRecord]:
    """Return the trials that are complete with finite objectives."""
    return [
        t for t in trials if t.verdict == "complete" and all(math.isfinite(v) for v in objectives.values(t.metrics))
    ]


def _values(trials: Sequence[TrialRecord], objectives: ObjectiveSpace) -> Floats:
    """Return the trials' objectives [n, k]."""
    rows = [objectives.values(t.metrics) for t in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, len(objectives.names))


def _trials_of_means(trials: Trials) -> Trials:
    """Return the confirmed members with their means in place of their metrics."""
    members = [(trial, trial.confirmation) for trial in trials if trial.confirmation and trial.confirmation.confirmed]
    return tuple(trial.model_copy(update={"metrics": c.mean}) for trial, c in members)


def _averaged(runs: Trials, objectives: ObjectiveSpace) -> Confirmation:
    """Return means and sample standard deviations (NaN of one run) over the complete runs, not yet confirmed; `reason`
    names a run that is not complete."""
    values = _values([run for run in runs if run.verdict == "complete"], objectives)
    broken = next((run for run in runs if run.verdict != "complete"), None)
    reason = f"the run with seed {broken.params['seed']}: {broken.verdict}" if broken else ""
    if not len(values):
        return Confirmation(runs=runs, reason=reason or "no run")
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(objectives.names), np.nan)
    return Confirmation(
        runs=runs,
        mean=dict(zip(objectives.names, values.mean(axis=0).tolist(), strict=True)),
        spread=dict(zip(objectives.names, spread.tolist(), strict=True)),
        reason=reason,
    )


def _refutation(number: int, means: Mapping[int, list[float]], objectives: ObjectiveSpace) -> str:
    """Return the reason why the mean of trial `number` is not on the front of all `means`; "" where it is."""
    mean = means[number]
    if not objectives.feasible(np.array([mean]))[0]:
        below = [name for name, by in objectives.violations(mean).items() if by > 0]
        return f"mean {' and '.join(below)} not better than the floor" if below else "its means are not numbers"
    for other, values in means.items():
        if objectives.feasible(np.array([values]))[0] and pareto.dominates(values, mean, objectives.directions):
            return f"the mean of trial {other} is better"
    return ""
