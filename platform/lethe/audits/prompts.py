"""Do the answers come back when the questions are put in another way?"""

from __future__ import annotations

from collections.abc import Iterator

from lethe.audits.base import Audited
from lethe.config.audits import Prompts
from lethe.data.rows import Row
from lethe.evaluation.distributed import evaluating
from lethe.evaluation.leaks import Leaks, Questions, answered, overlap
from lethe.records import AuditRecord


def ask_otherwise(audited: Audited, config: Prompts) -> Iterator[AuditRecord]:
    """The same rows as the study asks them, and in each of the ways."""
    ways = {"paraphrase": _paraphrased, "prefix": _prefixed, "first_words": _begun}
    for kind in config.kinds:
        before, after = ways[kind](audited, config)
        yield AuditRecord(variant=kind, before=before, after=after)


PromptPair = tuple[dict[str, float], dict[str, float]]


def _paraphrased(audited: Audited, config: Prompts) -> PromptPair:
    questions = [row.paraphrased_question or row.question for row in audited.rows]
    asked = audited.ask(Questions.of(audited.template, audited.rows, questions))
    return audited.plainly.means(), asked.means()


def _prefixed(audited: Audited, config: Prompts) -> PromptPair:
    """The prefix whose answers have most in common with the true ones."""

    def asked(prefix: str) -> Leaks:
        questions = [f"{prefix} {row.question}" for row in audited.rows]
        return audited.ask(Questions.of(audited.template, audited.rows, questions))

    worst = max((asked(prefix) for prefix in config.prefixes), key=lambda leaks: leaks.rouge.mean())
    return audited.plainly.means(), worst.means()


def _begun(audited: Audited, config: Prompts) -> PromptPair:
    """ROUGE of the rest alone, before as well. Teacher-forced metrics would be what they are without this audit: they
    give every token the true ones before it."""
    parts = [split(row, config.words) for row in audited.rows]
    template, evaluation = audited.template, audited.recipe.evaluation
    prompts = tuple(
        template.prompt(row.question) + (template.answer(begun)[:-1] if begun else ())
        for row, (begun, _) in zip(audited.rows, parts, strict=True)
    )
    with evaluating(audited.model):
        answers = answered(audited.model, prompts, template, evaluation, audited.shard)
    rests = [rest for _, rest in parts]
    before, after = (float(overlap(rests, given).mean()) for given in (audited.plainly.answers, answers))
    return {"forget_rouge": before}, {"forget_rouge": after}


def split(row: Row, words: int) -> tuple[str, str]:
    """The first words of the answer and the rest, which has a word at least."""
    found = row.answer.split()
    given = min(words, len(found) - 1)
    return " ".join(found[:given]), " ".join(found[given:])
