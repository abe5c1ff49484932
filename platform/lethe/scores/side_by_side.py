"""Several models on one benchmark, and what they are measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lethe.scores.models import Candidate
from lethe.scores.scoring import Scoring
from lethe.scores.yardstick import beside

Begin = Callable[[str], None]  # told the name of the model that is looked at next


@dataclass(frozen=True)
class Scored:
    """A model with its metrics."""

    model: Candidate
    metrics: dict[str, float]

    @property
    def column(self) -> tuple[str, dict[str, float]]:
        """What a table shows."""
        return self.model.name, self.metrics

    def as_json(self) -> dict[str, Any]:
        """What a file says: names as they were given."""
        return {"model": self.model.name, "digest": self.model.digest, "metrics": self.metrics}


@dataclass(frozen=True)
class SideBySide:
    """`yardstick`: the oracle, or for TDEC the start model."""

    models: tuple[Scored, ...]
    yardstick: Scored | None


def score_all(scoring: Scoring, models: Sequence[Candidate], yardstick: Candidate | None, begin: Begin) -> SideBySide:
    """Each from the cache or measured, in order, the yardstick first. Raises BadInput for the model that cannot be."""
    measure = None
    if yardstick is not None:
        begin(yardstick.name)
        measure = scoring.scores(yardstick)

    def scored(model: Candidate) -> Scored:
        if scoring.needs_start:
            itself = yardstick is not None and model.digest == yardstick.digest
            return Scored(model, scoring.scores(model, None if itself else measure).metrics)
        scores = scoring.scores(model)
        return Scored(model, beside(scores, measure) if measure else scores.metrics)

    found = []
    for model in models:
        begin(model.name)
        found.append(scored(model))
    return SideBySide(tuple(found), scored(yardstick) if yardstick else None)


def strangers(models: Sequence[Candidate], data: str, yardstick: Candidate | None) -> Iterator[str]:
    """A line for each registered version that comes from other data, or was compared with another oracle."""
    others = {"lethe.data": ("other data", data)}
    if yardstick is not None:
        others["lethe.oracle"] = ("another oracle", yardstick.digest)
    for model in models:
        for tag, (what, digest) in others.items():
            if model.tags.get(tag, digest) != digest:
                yield f"{model.name} comes from a study with {what}: its numbers there are others than here"
