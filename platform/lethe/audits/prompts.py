"""Audit by prompts: the forget questions, asked in other ways."""

from __future__ import annotations

from collections.abc import Iterator

from lethe.audits.base import AUDITS, Audited, BeforeAndAfter
from lethe.config.audits import Prompts
from lethe.data.template import Row
from lethe.data.words import WORD
from lethe.evaluation.distributed import evaluating
from lethe.evaluation.leaks import Questions, answered, overlap
from lethe.records import AuditRecord


@AUDITS.implements(Prompts)
def ask_otherwise(audited: Audited, config: Prompts) -> Iterator[AuditRecord]:
    """Ask the same rows as the study does, and in each of the ways that `config` names."""
    ways = {"paraphrase": _paraphrased, "prefix": _prefixed, "first_words": _begun}
    for kind in config.kinds:
        before, after = ways[kind](audited, config)
        yield AuditRecord(variant=kind, before=before, after=after)


def _paraphrased(audited: Audited, config: Prompts) -> BeforeAndAfter:
    questions = [row.paraphrased_question or row.question for row in audited.rows]
    asked = audited.ask(Questions.of(audited.template, audited.rows, questions))
    return audited.unaltered.means(), asked.means()


def _prefixed(audited: Audited, config: Prompts) -> BeforeAndAfter:
    wordings = ([f"{prefix} {row.question}" for row in audited.rows] for prefix in config.prefixes)
    return audited.unaltered.means(), audited.ask_worst(wordings).means()


def _begun(audited: Audited, config: Prompts) -> BeforeAndAfter:
    """Return the ROUGE of the answers without their first words, before and after giving these."""
    # Teacher-forced metrics would not differ: they give every token the true ones before it.
    parts = [split(row, config.words) for row in audited.rows]
    template, evaluation = audited.template, audited.recipe.evaluation
    prompts = tuple(template.begun(row.question, begun) for row, (begun, _) in zip(audited.rows, parts, strict=True))
    with evaluating(audited.model):
        answers = answered(audited.model, prompts, template, evaluation, audited.shard)
    rests = [rest for _, rest in parts]
    before, after = (float(overlap(rests, texts, evaluation).mean()) for texts in (audited.unaltered.answers, answers))
    return {"forget_rouge": before}, {"forget_rouge": after}


def split(row: Row, words: int) -> tuple[str, str]:
    """Return the first `words` words of the row's answer, or fewer, and the rest, which has at least one word. Where
    the answer has no spaces, as in Chinese, its words are those of `lethe.data.words`."""
    answer = row.answer.split()
    if len(answer) < 2:
        ends = [0, *(word.end() for word in WORD.finditer(row.answer))]
        at = ends[min(words, max(0, len(ends) - 2))]
        return row.answer[:at], row.answer[at:]
    count = min(words, len(answer) - 1)
    return " ".join(answer[:count]), " ".join(answer[count:])
