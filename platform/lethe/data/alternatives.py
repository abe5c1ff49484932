"""Other answers to the forget questions, which an objective may train towards in the place of the true ones. AltPO:
Mekala et al. 2024, arXiv 2409.13474."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lethe.config.benchmark import GENERATED, PERTURBED, RULE
from lethe.config.columns import Columns
from lethe.data.perturbing import make_wrong_answers
from lethe.data.source_rows import Question
from lethe.data.sources import read_source
from lethe.data.words import same_text
from lethe.errors import UserError

MADE = 5  # of each row, at most
REMEDY = "give a file with answers to every forget question"
RULES = f"{GENERATED} 1"  # in the data's digest: count it up when the start model is asked otherwise
SEED = 1  # not that of the wrong answers which evaluations read (benchmark.made_answers)


def find_alternatives(given: str, rows: Sequence[Question]) -> tuple[tuple[str, ...], ...]:
    """Return the alternatives to the answer of each of `rows`, at least one each, without the true answer.

    `given` is `benchmark.alternatives`: "perturbed" are the rows' wrong answers, "rule" are made ones, anything else is
    a file of questions, whose answers and wrong answers are taken, several rows of one question together. Those that
    are "generated" are none of the data: see `lethe.unlearning.other_answers`. Raises UserError with the name, and
    without the text, of the first row that has none.
    """
    if given == GENERATED:
        return ()
    if given == PERTURBED:
        found: Sequence[Sequence[str]] = [row.perturbed_answers for row in rows]
    elif given == RULE:
        made = make_wrong_answers([(row.question, row.answer) for row in rows], MADE, SEED)
        found = [answers or () for answers in made]
    else:
        found = _from_file(given, rows)
    alternatives = [
        tuple(text for text in dict.fromkeys(texts) if same_text(text) != same_text(row.answer))
        for texts, row in zip(found, rows, strict=True)
    ]
    for row, texts in zip(rows, alternatives, strict=True):
        if not texts:
            raise UserError(f"benchmark.alternatives: {given} has no other answer to {row.name}: {REMEDY}")
    return tuple(alternatives)


def _from_file(given: str, rows: Sequence[Question]) -> list[list[str]]:
    try:
        source = read_source(given, Columns())
    except UserError as error:
        raise UserError(f"benchmark.alternatives: {error} (or {PERTURBED}, {RULE} or {GENERATED})") from None
    answers: dict[str, list[str]] = defaultdict(list)
    for row in source.rows:
        if not isinstance(row, Question):
            raise UserError(f"benchmark.alternatives: {source.name} has {source.kind}: give questions with answers")
        answers[same_text(row.question)] += [row.answer, *row.perturbed_answers]
    return [answers[same_text(row.question)] for row in rows]
