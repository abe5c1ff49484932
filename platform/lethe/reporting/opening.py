"""The first screen of a study's report: is it forgotten, what was done, what won, what it cost, how far to trust it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from lethe.config.audits import audit_of
from lethe.config.benchmarks import BENCHMARKS
from lethe.records import Forgotten, StudyRecord, TrialRecord
from lethe.reporting.confirmation_and_audits import describe_confirmations
from lethe.reporting.scales import format_count, format_duration, format_magnitude, format_number
from lethe.reporting.terms import NAMES
from lethe.reporting.trial_views import (
    ARM_PARAMETERS,
    aliases_by_trial,
    front_by_alias,
    metric_value,
    varying_parameters,
    verdict_counts,
)
from lethe.reporting.worker_time import study_cost


@dataclass(frozen=True)
class Opening:
    """The text of the first screen. `verdict`: of the best model, None where none was judged; `trial`: the number of
    the model that it speaks of; `facts`: a question and its answer each."""

    verdict: Forgotten | None
    sentence: str
    because: str
    trial: int | None
    facts: dict[str, str]

    def lines(self) -> list[str]:
        """Return the text as lines, for a terminal."""
        facts = [f"{question}: {answer}" for question, answer in self.facts.items()]
        return [line for line in (self.sentence, self.because, *facts) if line]


def opening(record: StudyRecord) -> Opening:
    """Return the first screen of a study that is no comparison."""
    best = record.winner
    facts = {
        "What was done": describe_task(record),
        "What won": describe_winner(record, best),
        "What it cost": describe_cost(record),
        "How far to trust it": describe_trust(record),
    }
    verdict = best.forgotten.forgotten if best and best.forgotten else None
    return Opening(verdict, describe_verdict(record), describe_reasons(best), best.number if best else None, facts)


def describe_verdict(record: StudyRecord) -> str:
    """Return in one sentence whether a model has forgotten."""
    complete = sum(trial.verdict == "complete" for trial in record.trials)
    if not record.front:
        return "No trial is better than every floor." if complete else "No trial completed."
    passed = [t.number for t in front_by_alias(record) if t.forgotten and t.forgotten.forgotten == "yes"]
    if passed:
        which = f"trial {passed[0]} meets" if len(passed) == 1 else f"trials {joined(map(str, passed))} meet"
        return f"Forgotten: {which} every criterion."
    best = record.winner
    if best is None or best.forgotten is None:
        return "No verdict: no criterion about forgetting could be checked."
    if best.forgotten.forgotten == "partly":
        return f"Partly forgotten: none of {format_count(len(record.front), 'winner')} meets every criterion."
    return f"Not forgotten: the deciding criterion fails for {_all(len(record.front))}."


def _all(count: int) -> str:
    return "the only winner" if count == 1 else f"all {count} winners"


def describe_reasons(best: TrialRecord | None) -> str:
    """Return what the best model lacks, or that it lacks nothing; "" where none was judged."""
    if best is None or best.forgotten is None:
        return ""
    checked, failing = best.forgotten.criteria, best.forgotten.failing
    found = "; ".join(criterion.describe() for criterion in (failing or checked[:3]))
    which = f"Trial {best.number} fails {len(failing)} of {len(checked)}" if failing else f"Trial {best.number}"
    return f"{which}: {found}."


def describe_task(record: StudyRecord) -> str:
    """Return method, model and its size, and rows, in words."""
    data = record.study.get("benchmark", {})
    rows = [f"{_verb(name)} {count} rows" for name, count in record.rows.items()]
    what = f"{', '.join(rows) or 'forget rows'} of {_data_name(data)}"
    how = " with ".join(filter(None, (_used(record, "objective"), _used(record, "optimizer"))))
    adapter = _used(record, "adapter")
    how += f" on {adapter}" if adapter else ""
    size = f", {format_magnitude(record.parameters)} parameters" if record.parameters else ""
    sampler = str(record.study.get("search", {}).get("sampler", ""))
    varying = [key for key in varying_parameters(record) if key not in ARM_PARAMETERS]
    count = format_count(len(varying), "parameter")
    searched = (
        f"{sampler.upper() or 'The search'} searched {count}" if sampler != "random" else f"{count} drawn at random"
    )
    searched = f" {searched}." if varying else ""
    return f"{_model_name(record)}{size}: {what}{', by ' if how else ''}{how}.{searched}"


def _verb(rows: str) -> str:
    return {"forget": "forget", "retain": "keep"}[rows]


def _data_name(benchmark: dict[str, object]) -> str:
    name = str(benchmark.get("name", "the benchmark"))
    name = (BENCHMARKS[name].title if name in BENCHMARKS else "") or name.upper()
    return f"the embedded {name}, invented by lethe" if benchmark.get("source") == "embedded" else name


def _model_name(record: StudyRecord) -> str:
    model = record.study.get("model", {})
    if model.get("name") == "embedded":
        return f"A small Llama of {model.get('layers', '?')} layers"
    given = str(model.get("base") or model.get("path") or "").removeprefix("package:")
    return PurePath(given).name or "The start model"


def _used(record: StudyRecord, section: str) -> str:
    values = dict.fromkeys(t.params.get(f"{section}.name") for t in record.trials)
    return joined((NAMES.get(str(value), str(value)) for value in values if value is not None), "or")


def joined(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list in a sentence: `a, b and c`."""
    *head, tail = list(words) or [""]
    return f"{', '.join(head)} {last} {tail}" if head else tail


def describe_winner(record: StudyRecord, best: TrialRecord | None) -> str:
    """Return the best model's objectives beside the start model's and the oracle's."""
    if best is None:
        return "None: " + ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(record)) + "."
    names = aliases_by_trial(record).get(best.number, [])
    title = f"Trial {best.number}" + (f" ({', '.join(names)})" if names else "")
    scores = [
        f"{goal.metric} {format_number(metric_value(best.metrics, goal.metric))}{references(record, goal.metric)}"
        for goal in record.objectives
    ]
    others = len(record.front) - 1
    more = f" The front has {format_count(others, 'other')}." if others else ""
    return f"{title}: {', '.join(scores)}.{more}"


def references(record: StudyRecord, metric: str) -> str:
    """Return ` (start 0.9, oracle 0.1)` with those models that have the metric; empty without one."""
    models = {"start": record.start, "oracle": record.oracle}
    scores = {name: model.metrics[metric] for name, model in models.items() if model and metric in model.metrics}
    known = [f"{name} {format_number(score)}" for name, score in scores.items()]
    return f" ({', '.join(known)})" if known else ""


def describe_cost(record: StudyRecord) -> str:
    """Return wall time, trials, worker groups and group-hours, and the training of start model and oracle."""
    count = format_count(len(record.trials), "trial")
    cost = study_cost(record)
    if cost is None:
        return f"{count}; their times are not known."
    groups = format_count(cost.groups, "worker group")
    hours = f"{cost.group_seconds / 3600:.2g} group-hours"
    repeats = cost.runs - len(record.trials)
    again = f" and {format_count(repeats, 'repetition')}" if repeats > 0 else ""
    trained = sum(training.seconds for training in record.trainings.values())
    models = joined("start model" if name == "start" else name for name in record.trainings)
    before = f", after {format_duration(trained)} for {models}" if trained else ""
    return f"{format_duration(cost.wall)} for {count}{again} on {groups} ({hours}){before}."


def unclaimed(record: StudyRecord) -> list[str]:
    """Return a sentence on what no verdict says for lack of rows that no model was trained on; nothing where there are
    such rows, or the benchmark never has any."""
    kind = BENCHMARKS.get(str(record.study.get("benchmark", {}).get("name")))
    needing = [name for name, metric in kind.metrics.items() if "holdout" in metric.needs] if kind else []
    if not needing or any(name in record.start.metrics for name in needing):
        return []
    return ["No rows that the model never saw: whether the forgotten ones stand out (membership) is not claimed."]


def describe_trust(record: StudyRecord) -> str:
    """Return how much stands behind the result: trials, fresh seeds, audits, or their absence."""
    ends = verdict_counts(record)
    sentences = [f"{format_count(len(record.trials), 'trial')}: {', '.join(f'{n} {verdict}' for verdict, n in ends)}."]
    confirmed = describe_confirmations(record)
    if confirmed:
        sentences.append(confirmed.partition(". ")[0].rstrip(".") + ".")
    elif record.front:
        sentences.append("One seed each: no fresh seeds confirm it.")
    if tried := dict.fromkeys(audit_of(audit.variant) for trial in record.front for audit in trial.audits):
        sentences.append(f"Audited by {joined(NAMES.get(name, name) for name in tried)}.")
    elif record.front:
        sentences.append("Not audited: the answers may be hidden and not gone.")
    if record.oracle is None:
        sentences.append("No oracle to compare with.")
    sentences += unclaimed(record)
    if record.interrupted:
        sentences.append("The study was interrupted.")
    return " ".join(sentences)
