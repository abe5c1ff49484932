"""Views of a study's trials that page, pictures and tables share: their order, their kind, their names and answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from lethe.config.adapter import Fila, Lora, Pissa, Vila
from lethe.config.comparison import REFERENCE_METHODS
from lethe.config.objective import Objective
from lethe.config.optimizer import Optimizer
from lethe.records import ObjectiveRecord, Sample, Scalar, StudyRecord, TrialRecord

TrialKind = Literal["front", "beaten", "infeasible", "reference", "stopped", "failed"]
KIND_LABELS: dict[TrialKind, str] = {  # best first
    "front": "on the front",
    "beaten": "beaten by another",
    "infeasible": "below a floor",
    "reference": "a reference, not on the front",
    "stopped": "stopped early",
    "failed": "failed",
}
ARM_PARAMETERS = ("arm", "arm_seed")  # added by a comparison to its trials' parameters


def trial_kind(trial: TrialRecord) -> TrialKind:
    """Return the kind that decides how a trial is drawn."""
    if is_reference(trial):
        return "reference"
    if trial.on_front:
        return "front"
    if trial.verdict == "complete":
        return "beaten" if trial.feasible else "infeasible"
    return "stopped" if trial.verdict in ("stopped", "interrupted") else "failed"


def is_reference(trial: TrialRecord) -> bool:
    """Tell whether a complete trial of a comparison is something to compare with: see `REFERENCE_METHODS`."""
    method = trial.params.get("objective.name")
    return trial.verdict == "complete" and "arm" in trial.params and method in REFERENCE_METHODS


def metric_value(metrics: Mapping[str, float], key: str) -> float:
    """Return the metric `key`, NaN where it is missing: a broken trial lacks some."""
    return float(metrics.get(key, math.nan))


def aliases_by_trial(record: StudyRecord) -> dict[int, list[str]]:
    """Return the aliases of each trial that has one, by its number, in the record's order."""
    aliases: dict[int, list[str]] = {}
    for alias, number in record.aliases.items():
        aliases.setdefault(number, []).append(alias)
    return aliases


def knee_trial(record: StudyRecord) -> TrialRecord | None:
    """Return the trial with the alias `knee`; None where no trial has it."""
    return next((trial for trial in record.trials if trial.number == record.aliases.get("knee")), None)


def front_by_alias(record: StudyRecord) -> list[TrialRecord]:
    """Return the front: the knee, then other trials with an alias, then the rest, best first objective first."""
    order = list(aliases_by_trial(record))
    front = [trial for trial in record.trials if trial.on_front]
    goal = record.objectives[0]
    sign = 1 if goal.direction == "minimize" else -1

    def position(trial: TrialRecord) -> tuple[float, float]:
        by_alias = order.index(trial.number) if trial.number in order else len(order)
        return by_alias, sign * metric_value(trial.metrics, goal.metric)

    return sorted(front, key=position)


def best_first(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials sorted by kind, then by Pareto rank, then by number."""
    kinds = list(KIND_LABELS)

    def position(trial: TrialRecord) -> tuple[int, float, int]:
        return (
            kinds.index(trial_kind(trial)),
            math.inf if trial.pareto_rank is None else trial.pareto_rank,
            trial.number,
        )

    return sorted(trials, key=position)


def verdict_counts(record: StudyRecord) -> list[tuple[str, int]]:
    """Return each verdict in words with its number of trials, most frequent first."""
    counts = Counter(trial.verdict for trial in record.trials)
    return [(verdict.replace("_", " "), count) for verdict, count in counts.most_common()]


def varying_parameters(record: StudyRecord) -> dict[str, str]:
    """Return the short label of every parameter in which trials differ by choice, by its key: searched ones with more
    than one value; where nothing was searched, all with more than one value.

    The label is the last part of the key, the whole key where two parameters share that part. A comparison's trials
    also differ in arm and seed.
    """
    searched = _searched_keys(record)
    values: dict[str, set[Scalar]] = {}
    for trial in record.trials:
        for key, value in trial.params.items():
            values.setdefault(key, set()).update([value] if value is not None else [])
    varying = [key for key, found in values.items() if len(found) > 1 and (not searched or key in searched)]
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in varying}  # `optimizer.name`: the optimizer
    uses = Counter(short.values())
    return {key: label if uses[label] == 1 else key for key, label in short.items()}


def constant_parameters(record: StudyRecord) -> dict[str, list[Scalar]]:
    """Return the values of every other parameter, by its key: several where they follow from what a trial chose."""
    varying = varying_parameters(record)
    values: dict[str, dict[Scalar, None]] = {}
    for trial in record.trials:
        for key, value in trial.params.items():
            if key not in varying and key not in ARM_PARAMETERS:
                values.setdefault(key, {})[value] = None
    return {key: list(found) for key, found in values.items()}


def _searched_keys(record: StudyRecord) -> set[str]:
    """Return the keys that the study's space, or an arm's, searches, and in a comparison arm and seed."""
    arms = (record.study.get("compare") or {}).get("arms", {})
    spaces = [record.study.get("space", {}), *(arm.get("space", {}) for arm in arms.values())]
    return {key for space in spaces for key in space} | set(ARM_PARAMETERS if arms else ())


def parameter_meaning(key: str) -> str:
    """Return what a parameter of a recipe is, "" where its name says it all."""
    section, _, field = key.partition(".")
    kinds: dict[str, Iterable[type[BaseModel]]] = {
        "objective": Objective.registered.values(),
        "optimizer": Optimizer.registered.values(),
        "adapter": (Lora, Pissa, Fila, Vila),
    }
    fields = [model.model_fields.get(field) for model in kinds.get(section, ())]
    return next((found.description for found in fields if found is not None and found.description), "")


def describe_direction(goal: ObjectiveRecord) -> str:
    """Return which values of an objective are better, in words."""
    return "lower is better" if goal.direction == "minimize" else "higher is better"


@dataclass(frozen=True)
class SampleAnswers:
    """A sample question with the true answer and those of the start model (`before`), the trial (`after`), the oracle.

    `before` and `oracle` are None where no such answer was kept.
    """

    split: str
    question: str
    answer: str
    before: str | None
    after: str
    oracle: str | None


def sample_answers(record: StudyRecord, trial: TrialRecord) -> list[SampleAnswers]:
    """Return a trial's sample answers beside the start model's and the oracle's."""
    before = answers_by_question(record.start.samples)
    oracle = answers_by_question(record.oracle.samples if record.oracle else ())

    def row(sample: Sample) -> SampleAnswers:
        key = sample.split, sample.question
        return SampleAnswers(*key, sample.answer, before.get(key), sample.generated, oracle.get(key))

    return [row(sample) for sample in trial.samples]


def answers_by_question(samples: Iterable[Sample]) -> dict[tuple[str, str], str]:
    """Return the generated answers by split and question."""
    return {(sample.split, sample.question): sample.generated for sample in samples}
