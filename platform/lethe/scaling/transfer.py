"""What the searches at several sizes found.

Whether a setting can be taken from a small model to a large one, and whether that pays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from lethe.config.base import canonical_json, short_digest
from lethe.config.space import FloatRange
from lethe.config.study import Study
from lethe.records import StudyRecord, TrialRecord
from lethe.scaling.design import SearchPoint
from lethe.scaling.laws import MOVES
from lethe.scaling_records import Estimate, SearchRecord, TransferRecord
from lethe.search.objectives import ObjectiveSpace, front_hypervolume, mark_front, representative_trial
from scipy.stats import spearmanr


def searched(
    point: SearchPoint, record: StudyRecord, parameters: float, target_of_start: float, prepared: float
) -> SearchRecord:
    """One search as numbers. `prepared`: seconds that making its models took, 0 where they were cached."""
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
        scores={best_setting(t, point.study): front_hypervolume((t,), objectives) for t in trials},
    )


def steps_to(trial: TrialRecord, metric: str, target: float, direction: str) -> float | None:
    """Optimizer steps at the first evaluation that is at least as good as the target."""
    sign = 1 if direction == "minimize" else -1
    reports = [r for r in (*trial.series, trial.metrics) if "optimizer_step" in r]
    return next((r["optimizer_step"] for r in reports if sign * r.get(metric, math.inf * sign) <= sign * target), None)


def _seconds(trials: Iterable[TrialRecord]) -> dict[str, float]:
    keys = ("train_seconds", "evaluate_seconds", "seconds")
    train, evaluate, whole = (sum(t.metrics.get(key, 0.0) for t in trials) for key in keys)
    return {"train": train, "evaluate": evaluate, "rest": max(0.0, whole - train - evaluate)}


def best_setting(trial: TrialRecord, study: Study) -> str:
    """Names what a trial was given by the search: equal at every size for equal proposals."""
    return short_digest(canonical_json(given(trial, study)))


def given(trial: TrialRecord, study: Study) -> dict[str, Any]:
    """The searched parameters that the trial has."""
    return {key: trial.params[key] for key in study.space if key in trial.params}


DRAWS = 2000


@dataclass
class Searched:
    """A search with its whole record and what stands for it."""

    point: SearchPoint
    sweep: StudyRecord
    record: SearchRecord

    @property
    def best(self) -> dict[str, Any]:
        """The setting of the trial that was chosen."""
        return given(next(t for t in self.sweep.trials if t.number == self.record.chosen), self.point.study)


@dataclass(frozen=True)
class Move:
    """A setting for the largest size: `run` has it in place, `trend` are the values that sizes in between moved."""

    setting: dict[str, Any]
    trend: dict[str, float]
    run: dict[str, Any]


def plan_move(line: Sequence[Searched]) -> Move:
    """From searches at rising sizes, what to run at the last of them; its own search is not looked at."""
    large = line[-1]
    known = [(s.record.parameters, s.best) for s in line[:-1]]
    setting, trend = predict(known, large.point.study, large.record.parameters)
    return Move(setting, trend, fixed(large.point.study.run, setting))


def predict(
    best: Sequence[tuple[float, Mapping[str, Any]]], study: Study, parameters: float
) -> tuple[dict[str, Any], dict[str, float]]:
    """The setting for a model of so many parameters, from the best ones of smaller models, (parameters, setting) each,
    smallest first. It is the smallest model's, with `MOVES` along the straight line through all of them in log-log,
    inside the search's range. Returns (setting, the values that were moved)."""
    chosen_setting = dict(best[0][1])
    moved = {}
    for key in MOVES:
        space = study.space.get(key)
        known = [(size, s[key]) for size, s in best if key in s]
        if len(known) < 2 or not isinstance(space, FloatRange):
            continue
        slope, level = np.polyfit(np.log([size for size, _ in known]), np.log([value for _, value in known]), 1)
        moved[key] = float(np.clip(np.exp(level + slope * np.log(parameters)), space.low, space.high))
    return {**chosen_setting, **moved}, moved


def fixed(run: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """`run` with dotted values in their places."""
    laid = {family: dict(part) if isinstance(part, dict) else part for family, part in run.items()}
    for key, value in setting.items():
        family, dot, name = key.partition(".")
        laid[family] = {**laid.get(family, {}), name: value} if dot else value
    return laid


def moved(line: Sequence[Searched], move: Move, sweep: StudyRecord) -> TransferRecord:
    """The trial of `sweep` against as much searching at the largest size as the smallest search and it have cost."""
    small, large = line[0], line[-1]
    objectives = ObjectiveSpace.from_goals(large.point.study.objectives, large.sweep.start.metrics)
    trial = next(iter(sweep.trials), None)
    spent = sum(map(seconds, small.sweep.trials)) + (seconds(trial) if trial else 0.0)
    each = sum(map(seconds, large.sweep.trials)) / len(large.sweep.trials)
    affordable = spent / each if each else 1.0
    return TransferRecord(
        arm=large.point.arm,
        small=small.point.size,
        large=large.point.size,
        setting=move.setting,
        scaled=move.trend,
        trial=trial and trial.number,
        score=front_hypervolume((trial,), objectives) if trial else 0.0,
        seconds=spent,
        trials_for_the_same=affordable,
        random_score=best_of(tuple(large.record.scores.values()), affordable),
        rank_correlation=rank_correlations([s.record for s in line]),
    )


def seconds(trial: TrialRecord) -> float:
    """What a trial took: its own clock, else its beginning and end."""
    return trial.metrics.get("seconds", trial.ended - trial.began)


def best_of(scores: Sequence[float], trials: float, seed: int = 0) -> Estimate:
    """The best score of `trials` random ones, expected, with the 5 and 95 % quantiles: drawn without replacement from
    those that were run. `trials` is rounded to whole ones within their number, at least one."""
    number = int(np.clip(round(trials), 1, len(scores)))
    draw = np.random.default_rng(seed)
    best = [draw.choice(scores, number, replace=False).max() for _ in range(DRAWS)]
    low, high = np.quantile(best, [0.05, 0.95])
    return Estimate(x=number, value=float(np.mean(best)), low=float(low), high=float(high))


def rank_correlations(searches: Sequence[SearchRecord]) -> dict[str, float]:
    """Spearman's rank correlation of the scores of settings that both sizes of a pair have tried, three at least."""
    found = {}
    for small, large in combinations(searches, 2):
        both = sorted(small.scores.keys() & large.scores.keys())
        pairs = [[s.scores[key] for key in both] for s in (small, large)]
        if len(both) >= 3 and all(len(set(scores)) > 1 for scores in pairs):
            found[f"{small.size} to {large.size}"] = float(spearmanr(*pairs).statistic)
    return found
