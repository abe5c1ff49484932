"""What a report says about a study, worked out once for the page, the picture and the table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lethe.records import ObjectiveRecord, Sample, StudyRecord, TrialRecord

TrialKind = Literal["front", "beaten", "infeasible", "stopped", "failed"]
KINDS: dict[TrialKind, str] = {
    "front": "on the front",
    "beaten": "beaten by another",
    "infeasible": "below a floor",
    "stopped": "stopped early",
    "failed": "failed",
}
LABELS = ("arm", "arm_seed")  # what a comparison adds to its trials' parameters


@dataclass(frozen=True)
class Answered:
    """A question with everyone's answers."""

    split: str
    question: str
    answer: str
    before: str | None
    after: str
    oracle: str | None


def trial_kind(trial: TrialRecord) -> TrialKind:
    """How a trial is drawn."""
    if trial.on_front:
        return "front"
    if trial.verdict == "complete":
        return "beaten" if trial.feasible else "infeasible"
    return "stopped" if trial.verdict in ("stopped", "interrupted") else "failed"


def names(record: StudyRecord) -> dict[int, list[str]]:
    """The aliases of each trial, in the record's order."""
    found: dict[int, list[str]] = {}
    for alias, number in record.aliases.items():
        found.setdefault(number, []).append(alias)
    return found


def knee(record: StudyRecord) -> TrialRecord | None:
    """The trial that the alias `knee` names."""
    return next((trial for trial in record.trials if trial.number == record.aliases.get("knee")), None)


def winners(record: StudyRecord) -> list[TrialRecord]:
    """The front: the knee, then the other trials with a name, then the rest in the order of the first objective."""
    order = list(names(record))
    front = [trial for trial in record.trials if trial.on_front]
    goal = record.objectives[0]
    sign = 1 if goal.direction == "minimize" else -1

    def place(trial: TrialRecord) -> tuple[float, float]:
        named = order.index(trial.number) if trial.number in order else len(order)
        return named, sign * value(trial.metrics, goal.metric)

    return sorted(front, key=place)


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Best first: by kind, then by rank, then by number."""
    kinds = list(KINDS)

    def place(trial: TrialRecord) -> tuple[int, float, int]:
        return (
            kinds.index(trial_kind(trial)),
            math.inf if trial.pareto_rank is None else trial.pareto_rank,
            trial.number,
        )

    return sorted(trials, key=place)


def value(metrics: dict[str, float], key: str) -> float:
    """A metric, NaN where there is none: a broken trial lacks some."""
    return float(metrics.get(key, math.nan))


def verdicts(record: StudyRecord) -> list[tuple[str, int]]:
    """How the trials ended, most frequent first."""
    counts = Counter(trial.verdict for trial in record.trials)
    return [(verdict.replace("_", " "), count) for verdict, count in counts.most_common()]


def param_names(record: StudyRecord) -> dict[str, str]:
    """Every parameter of any trial, in a comparison what tells its trials apart; what differs between trials first,
    with the shortest name that is its own."""
    seen = dict.fromkeys(key for trial in record.trials for key in trial.params)
    told = [key for key in seen if not record.members or _tells_apart(record, key)]
    full = sorted(told, key=lambda key: len({trial.params.get(key) for trial in record.trials}) == 1)
    brief = {key: key.removesuffix(".name").rpartition(".")[2] for key in full}  # `optimizer.name` is the optimizer
    shared = Counter(brief.values())
    return {key: name if shared[name] == 1 else key for key, name in brief.items()}


def answers(record: StudyRecord, trial: TrialRecord) -> list[Answered]:
    """A trial's sample answers beside the start model's and the oracle's."""
    before, oracle = by_question(record.start.samples), by_question(record.oracle.samples if record.oracle else ())

    def row(sample: Sample) -> Answered:
        key = sample.split, sample.question
        return Answered(*key, sample.answer, before.get(key), sample.generated, oracle.get(key))

    return [row(sample) for sample in trial.samples]


def wanted(goal: ObjectiveRecord) -> str:
    """Which way an objective should go, in words."""
    return "lower is better" if goal.direction == "minimize" else "higher is better"


def _tells_apart(record: StudyRecord, key: str) -> bool:
    """Arms, seeds and what is searched; the rest is the arms' own definition, which is in the configuration."""
    arms = record.study["compare"]["arms"].values()
    return key in LABELS or any(key in space for space in (record.study["space"], *(arm["space"] for arm in arms)))


def by_question(samples: Iterable[Sample]) -> dict[tuple[str, str], str]:
    """What was generated, by split and question."""
    return {(sample.split, sample.question): sample.generated for sample in samples}
