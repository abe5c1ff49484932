"""Results of the searches at several sizes, and the transfer of a setting from the smallest size to the largest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from lethe.config.base import canonical_json, short_digest
from lethe.config.space import FloatRange
from lethe.config.study import Study
from lethe.records import StudyRecord, TrialRecord
from lethe.scaling.design import SearchPoint
from lethe.scaling.laws import MOVES
from lethe.scaling_records import Estimate, SearchRecord, TransferRecord
from lethe.search.front import (
    front_hypervolume,
    mark_front,
    representative_trial,
)
from lethe.search.objectives import ObjectiveSpace


def search_record(
    point: SearchPoint, record: StudyRecord, parameters: float, target_of_start: float, prepared: float
) -> SearchRecord:
    """Return the record of one search; `prepared`: seconds that making its models took, 0 where they were cached."""
    objectives = ObjectiveSpace.from_goals(point.study.objectives, record.start.metrics)
    trials = mark_front(record.trials, objectives)
    number = representative_trial(trials, objectives)
    goal = record.objectives[0]
    target = record.start.metrics[goal.metric] * target_of_start
    steps = {t.number: steps_to(t, goal.metric, target, goal.direction) for t in trials}
    reached = {n: s for n, s in steps.items() if s is not None}
    wins = [t.metrics["win_rate"] for t in trials if "win_rate" in t.metrics]
    return SearchRecord(
        size=point.size,
        arm=point.arm,
        forget=point.forget,
        parameters=parameters,
        trials=tuple(t.number for t in trials),
        hypervolume=front_hypervolume(trials, objectives),
        chosen=number,
        start=record.start.metrics,
        target=target,
        steps_to_target=reached.get(number, min(reached.values(), default=None)) if number is not None else None,
        reached=len(reached),
        seconds={"prepare": prepared, **_seconds(trials)},
        win_rate=float(np.median(wins)) if wins else None,
        scores={setting_digest(t, point.study): front_hypervolume((t,), objectives) for t in trials},
    )


def steps_to(trial: TrialRecord, metric: str, target: float, direction: str) -> float | None:
    """Return the optimizer steps at the first evaluation that is at least as good as the target; None without one."""
    sign = 1 if direction == "minimize" else -1
    reports = [r for r in (*trial.series, trial.metrics) if "optimizer_step" in r]
    return next((r["optimizer_step"] for r in reports if sign * r.get(metric, math.inf * sign) <= sign * target), None)


def _seconds(trials: Iterable[TrialRecord]) -> dict[str, float]:
    keys = ("train_seconds", "evaluate_seconds", "seconds")
    train, evaluate, total = (sum(t.metrics.get(key, 0.0) for t in trials) for key in keys)
    return {"train": train, "evaluate": evaluate, "rest": max(0.0, total - train - evaluate)}


def setting_digest(trial: TrialRecord, study: Study) -> str:
    """Return the digest of a trial's searched parameters, equal at every size for equal proposals."""
    return short_digest(canonical_json(searched_setting(trial, study)))


def searched_setting(trial: TrialRecord, study: Study) -> dict[str, Any]:
    """Return the searched parameters that the trial has."""
    return {key: trial.params[key] for key in study.space if key in trial.params}


DRAWS = 2000


@dataclass
class FinishedSearch:
    """A search with its study record and its scaling record."""

    point: SearchPoint
    sweep: StudyRecord
    record: SearchRecord

    @property
    def best(self) -> dict[str, Any]:
        """The searched parameters of the chosen trial."""
        return searched_setting(next(t for t in self.sweep.trials if t.number == self.record.chosen), self.point.study)


@dataclass(frozen=True)
class Move:
    """A setting for the largest size: `run` has it in place, `trend` the values that were moved along sizes between."""

    setting: dict[str, Any]
    trend: dict[str, float]
    run: dict[str, Any]


def plan_move(line: Sequence[FinishedSearch]) -> Move:
    """Return the setting to run at the last of these searches at rising sizes; its own search is not looked at."""
    large = line[-1]
    known = [(s.record.parameters, s.best) for s in line[:-1]]
    setting, trend = predict(known, large.point.study, large.record.parameters)
    return Move(setting, trend, with_setting(large.point.study.run, setting))


def predict(
    best: Sequence[tuple[float, Mapping[str, Any]]], study: Study, parameters: float
) -> tuple[dict[str, Any], dict[str, float]]:
    """Predict the setting for a model of `parameters` weights; return it, and those of its values that were moved.

    `best` has (weights, setting) of smaller models, smallest first. The setting is the smallest model's, with `MOVES`
    along the straight line through all of them in log-log, inside the search's range.
    """
    smallest = dict(best[0][1])
    moved = {}
    for key in MOVES:
        space = study.space.get(key)
        known = [(size, s[key]) for size, s in best if key in s]
        if len(known) < 2 or not isinstance(space, FloatRange):
            continue
        slope, level = np.polyfit(np.log([size for size, _ in known]), np.log([value for _, value in known]), 1)
        moved[key] = float(np.clip(np.exp(level + slope * np.log(parameters)), space.low, space.high))
    return {**smallest, **moved}, moved


def with_setting(run: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return `run` with the values of a setting, whose keys are dotted, in their places."""
    changed = {family: dict(part) if isinstance(part, dict) else part for family, part in run.items()}
    for key, value in setting.items():
        family, dot, name = key.partition(".")
        changed[family] = {**changed.get(family, {}), name: value} if dot else value
    return changed


def transfer_record(line: Sequence[FinishedSearch], move: Move, sweep: StudyRecord) -> TransferRecord:
    """Compare the trial of `sweep` with as much searching at the largest size as the smallest search and it cost."""
    small, large = line[0], line[-1]
    objectives = ObjectiveSpace.from_goals(large.point.study.objectives, large.sweep.start.metrics)
    trial = next(iter(sweep.trials), None)
    spent = sum(map(trial_seconds, small.sweep.trials)) + (trial_seconds(trial) if trial else 0.0)
    mean = sum(map(trial_seconds, large.sweep.trials)) / len(large.sweep.trials)
    affordable = spent / mean if mean else 1.0
    return TransferRecord(
        arm=large.point.arm,
        small=small.point.size,
        large=large.point.size,
        setting=move.setting,
        scaled=move.trend,
        trial=trial.number if trial else None,
        score=front_hypervolume((trial,), objectives) if trial else 0.0,
        seconds=spent,
        trials_for_the_same=affordable,
        random_score=best_of(tuple(large.record.scores.values()), affordable),
        rank_correlation=rank_correlations([s.record for s in line]),
    )


def trial_seconds(trial: TrialRecord) -> float:
    """Return the seconds of a trial by its own clock, else from its beginning to its end."""
    return trial.metrics.get("seconds", trial.ended - trial.began)


def best_of(scores: Sequence[float], trials: float, seed: int = 0) -> Estimate:
    """Return the expected best score of `trials` random trials, with its 5 and 95 % quantiles.

    They are drawn without replacement from `scores`; `trials` is rounded and limited to 1 to their number.
    """
    number = int(np.clip(round(trials), 1, len(scores)))
    draw = np.random.default_rng(seed)
    best = [draw.choice(scores, number, replace=False).max() for _ in range(DRAWS)]
    low, high = np.quantile(best, [0.05, 0.95])
    return Estimate(x=number, value=float(np.mean(best)), low=float(low), high=float(high))


def rank_correlations(searches: Sequence[SearchRecord]) -> dict[str, float]:
    """Return by pair of sizes Spearman's rank correlation of the scores of at least three settings that both tried."""
    correlations = {}
    for small, large in combinations(searches, 2):
        both = sorted(small.scores.keys() & large.scores.keys())
        pairs = [[s.scores[key] for key in both] for s in (small, large)]
        if len(both) >= 3 and all(len(set(scores)) > 1 for scores in pairs):
            correlations[f"{small.size} to {large.size}"] = float(spearmanr(*pairs).statistic)
    return correlations
