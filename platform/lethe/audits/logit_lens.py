"""Audit by logit lens: does an inner layer still prefer the answers that the last one no longer gives?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lethe.audits.base import AUDITS, Audited
from lethe.audits.choices import Choices
from lethe.config.answer_audits import LogitLens
from lethe.data.template import Encoded
from lethe.evaluation.metrics import probability
from lethe.models.fisher import evenly_spread
from lethe.models.layers import first_layers, inner_layers
from lethe.records import AuditRecord


@AUDITS.implements(LogitLens)
def look_inside(audited: Audited, config: LogitLens) -> Iterator[AuditRecord]:
    """Score the forget rows with the first layers alone, for every number of them, and compare all layers with the
    inner ones' best."""
    inner = inner_layers(audited.model)
    evaluated = audited.task.evaluated_forget(audited.recipe.evaluation)
    chosen = evenly_spread(range(len(evaluated)), config.rows)
    answers = [evaluated[i] for i in chosen]
    choices = _choices(audited, chosen) if len(audited.rows) == len(evaluated) else None
    *found, before = [_read(audited, count, answers, choices) for count in (*inner, inner.stop)]
    _, best = max((values["forget_probability"], count) for count, values in zip(inner, found, strict=True))
    after = {name: max(values[name] for values in found) for name in before}
    yield AuditRecord(
        variant=config.name, before={**before, "layer": float(inner.stop)}, after={**after, "layer": float(best)}
    )


def _choices(audited: Audited, chosen: Sequence[int]) -> Choices | None:
    """Return the answers of the `chosen` rows among wrong ones, None where a row has none."""
    rows = [audited.rows[i] for i in chosen]
    return Choices.plain(audited.template, rows) if all(row.perturbed_answers for row in rows) else None


def _read(audited: Audited, count: int, answers: Sequence[Encoded], choices: Choices | None) -> dict[str, float]:
    """Return the mean probability of the `answers`, and how the model chooses, with its first `count` layers."""
    with first_layers(audited.model, count):
        losses = audited.losses([*answers, *(choices.pairs if choices else ())])
    values = {"forget_probability": float(probability(np.array(losses[: len(answers)])).mean())}
    return {**values, "forget_choice": choices.above_chance(losses[len(answers) :])} if choices else values
