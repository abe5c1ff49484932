"""Names of registered models: versions, and aliases: a study's own, a search space's, and those that a person gives.

A study's own, such as `tofu-1a2b3c4d-knee`, is nobody else's. The space's `knee` moves only to a model that dominates
the one it names, so that whoever loads it never gets a worse one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lethe.errors import UserError
from lethe.records import ObjectiveRecord, StudyRecord, TrialRecord
from lethe.search.pareto import dominates

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAME = ("lethe.data", "lethe.base", "lethe.oracle")  # tags that two versions must share to be compared
_REFUSED = re.compile(r"[^A-Za-z0-9_-]")
_RESERVED = re.compile(r"latest|v[0-9]+", re.IGNORECASE)  # MLflow's own
_SEARCHED = re.compile(r"knee|best-.*|[0-9]+|.+-[0-9a-f]{8}(-[0-9]+)?-(knee|best-.*)")  # the studies', and trials


class Registered(NamedTuple):
    """A study in MLflow, by the trials' numbers: the address of each registered version, such as
    `models:/lethe-tofu/2`, and the page of each run below the server's address; and a line for each alias of the search
    space that names another study's model."""

    versions: Mapping[int, str] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    pages: Mapping[int, str] = MappingProxyType({})

    def add_to(self, record: StudyRecord) -> StudyRecord:
        """Return the record with versions and pages in it."""

        def added(trial: TrialRecord) -> TrialRecord:
            found = {
                "version": self.versions.get(trial.number, trial.version),
                "page": self.pages.get(trial.number, trial.page),
            }
            return trial.model_copy(update=found)

        return record.model_copy(update={"trials": tuple(map(added, record.trials))})


def study_alias(study: str, alias: str) -> str:
    """Return the alias that belongs to the study with this id alone. MLflow has only letters, digits, `_` and `-`."""
    return _REFUSED.sub("_", f"{study}-{alias}")


def check_aliases(aliases: Iterable[str]) -> None:
    """Raise UserError for an alias that MLflow refuses, and for one that only studies move or that names a trial."""
    for alias in aliases:
        if _REFUSED.search(alias) or _RESERVED.fullmatch(alias) or len(alias) > 255:
            allowed = "letters, digits, _ and -, at most 255, and neither latest nor v1, v2, ..."
            raise UserError(f"--as {alias}: an alias has {allowed}")
        if _SEARCHED.fullmatch(alias):
            raise UserError(f"--as {alias}: studies move knee and best-..., and a number is a trial: give another name")


def advance(
    client: MlflowClient, name: str, alias: str, version: str, objectives: Sequence[ObjectiveRecord]
) -> str | None:
    """Let `alias` of the registered model `name` name `version`, if it names none yet or one that `version` dominates.
    Return one line where it names another one, else None."""
    current = str(client.get_registered_model(name).aliases.get(alias, ""))
    if current == version:
        return None
    if current:
        old, new = (client.get_model_version(name, number).tags for number in (current, version))
        if reason := describe_obstacle(objectives, new, old):
            return f"models:/{name}@{alias} stays on version {current}: version {version} {reason}"
    client.set_registered_model_alias(name, alias, version)
    if not current:
        return None
    return f"models:/{name}@{alias} was version {current} and is version {version}, which dominates it"


def describe_obstacle(
    objectives: Sequence[ObjectiveRecord], new: Mapping[str, str], old: Mapping[str, str]
) -> str | None:
    """Return in words why a version with the tags `new` does not dominate one with the tags `old`; None where it
    does."""
    if any(new.get(tag) != old.get(tag) for tag in SAME):
        return "has other data, another start model or another oracle, so that the two cannot be compared"
    metrics = [goal.metric for goal in objectives]
    try:
        ours, theirs = ([float(tags[metric]) for metric in metrics] for tags in (new, old))
    except (KeyError, ValueError):
        return "has other objectives, so that the two cannot be compared"
    if dominates(ours, theirs, [goal.direction for goal in objectives]):
        return None
    scores = zip(metrics, ours, theirs, strict=True)
    compared = ", ".join(f"{metric} {our:.3g} to {their:.3g}" for metric, our, their in scores)
    return f"does not dominate it ({compared})"
