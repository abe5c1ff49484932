"""Audit by format: the forget questions in forms that a defence against questions may not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lethe.audits.base import AUDITS, Audited, BeforeAndAfter
from lethe.audits.choices import Choices
from lethe.config.answer_audits import Format, FormatKind, statement
from lethe.config.prompt import QUESTION
from lethe.data.template import Encoded, Row, Template
from lethe.errors import UserError
from lethe.evaluation.causal_lm import text_config
from lethe.evaluation.context_length import context_of
from lethe.evaluation.leaks import Leaks, Questions, ask
from lethe.records import AuditRecord


@AUDITS.implements(Format)
def ask_in_other_forms(audited: Audited, config: Format) -> Iterator[AuditRecord]:
    """Ask the same rows as the study does, and in each of the forms that `config` names."""
    forms: dict[FormatKind, Callable[[Audited, Format], BeforeAndAfter]] = {
        "completion": _completed,
        "statement": _stated,
        "template": _retemplated,
        "framed": _framed,
        "choice": lambda audited, _: _chosen(audited, letters=False),
        "letters": lambda audited, _: _chosen(audited, letters=True),
    }
    for kind in config.kinds:
        before, after = forms[kind](audited, config)
        yield AuditRecord(variant=kind, before=before, after=after)


def _completed(audited: Audited, _: Format) -> BeforeAndAfter:
    texts = [row.question for row in audited.rows]
    return audited.unaltered.means(), _continued(audited, audited.rows, texts).means()


def _stated(audited: Audited, _: Format) -> BeforeAndAfter:
    """Compare the questions that become a statement with these, and no others."""
    stated = [(i, text) for i, row in enumerate(audited.rows) if (text := statement(row.question))]
    numbers = [i for i, _ in stated]
    rows = [audited.rows[i] for i in numbers]
    leaks = _continued(audited, rows, [text for _, text in stated])
    return audited.unaltered.means(numbers), leaks.means()


def _retemplated(audited: Audited, config: Format) -> BeforeAndAfter:
    own = audited.template
    other = Template(
        own.tokenizer, config.prompt, instruction=own.instruction, stops=own.text_stops, vocabulary=own.vocabulary
    )
    asked = ask(audited.model, Questions.of(other, audited.rows), other, audited.recipe.evaluation, audited.shard)
    return audited.unaltered.means(), asked.means()


def _framed(audited: Audited, config: Format) -> BeforeAndAfter:
    wordings = ([frame.replace(QUESTION, row.question) for row in audited.rows] for frame in config.frames)
    return audited.unaltered.means(), audited.ask_worst(wordings).means()


def _chosen(audited: Audited, *, letters: bool) -> BeforeAndAfter:
    """Compare the options' likelihoods as answers to the plain question with those beside a list of all of them."""
    most = context_of(text_config(audited.model)) or 2**31
    fitting = Choices.listed(audited.template, audited.rows, letters=letters, most=most)
    if not fitting.counts:
        raise UserError(f"audits.format.kinds: choice: no question fits with its choices into {most} tokens")
    plain = Choices.plain(audited.template, audited.rows)
    before, after = (choices.above_chance(audited.losses(choices.pairs)) for choices in (plain, fitting))
    return {"forget_choice": before}, {"forget_choice": after}


def _continued(audited: Audited, rows: Sequence[Row], texts: Sequence[str]) -> Leaks:
    """Return the leaks where the model continues `texts` as plain text, without any template."""
    template = audited.template
    begun = [f"{template.instruction} {text}".strip() for text in texts]
    pairs = [template.continuation(f"{text} ", row.answer) for text, row in zip(begun, rows, strict=True)]
    ended = tuple(Encoded((*pair.ids, template.eos), pair.prompt_length) for pair in pairs)
    # As in `Template.prompt`: a model writes the space with the word behind it.
    return audited.ask(Questions(ended, tuple(map(template.text, begun)), tuple(row.answer for row in rows)))
