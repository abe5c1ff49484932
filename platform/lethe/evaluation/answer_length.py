"""Answers that an evaluation cannot measure: longer than what a model may generate, or without words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lethe.config.run import Evaluation, RougeRule
from lethe.data.template import Asked, Template
from lethe.errors import UserError
from lethe.evaluation.metrics import reference_words, rouge_l_recall


def cut_answers(rows: Sequence[tuple[Asked, str]], config: Evaluation, template: Template) -> Iterator[str]:
    """Yield a line if the answers of some `rows`, pairs of question and answer, have more tokens than
    `config.max_new_tokens`: how many, and the ROUGE of a model that knows them by heart."""
    most = config.max_new_tokens
    answers = [(answer, template.encode(question, answer).answer[:-1]) for question, answer in rows]
    long = [(answer, ids) for answer, ids in answers if len(ids) > most]
    if long:
        known = [rouge_l_recall(answer, template.decode(list(ids[:most])), config.rouge) for answer, ids in long]
        yield (
            f"{len(long)} of {len(rows)} answers are longer than run.evaluation.max_new_tokens, {most}, the longest has"
            f" {max(len(ids) for _, ids in long)} tokens: a model that knows them by heart has a ROUGE of"
            f" {sum(known) / len(known):.2f} on them"
        )


def refuse_wordless(split: str, answers: Sequence[str], rule: RougeRule) -> None:
    """Raise UserError for the first of a split's `answers` without a word by `rule`: its ROUGE would be 0 whatever a
    model says."""
    for number, answer in enumerate(answers, 1):
        if not reference_words(answer, rule)[1]:
            raise UserError(
                f"row {number} of {split}: no word for ROUGE in the answer: it needs a letter, a digit or a symbol"
            )
