"""Answers that are longer than what an evaluation lets a model generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lethe.config.run import Evaluation
from lethe.data.template import Asked, Template
from lethe.evaluation.metrics import rouge_l_recall


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
