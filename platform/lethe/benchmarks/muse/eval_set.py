"""Everything that an evaluation of MUSE reads, tokenised once per study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from lethe.benchmarks.muse.loading import MuseRows
from lethe.config.base import canonical_json, short_digest
from lethe.config.muse import MuseBenchmark
from lethe.config.run import Evaluation, RougeRule
from lethe.data.template import Encoded, Row, Template
from lethe.evaluation.texts import Texts, windows_of

ENDS = ("\n\n", "\nQuestion", "Question:")  # of a generated answer, as published


@dataclass(frozen=True)
class Prompted:
    """Prompts [n] that greedy text goes on from, for at most `tokens` tokens, up to the first of `ends`; `targets` [n]
    are what it is compared with, `shown` [n] what people see of the prompts."""

    name: str
    prompts: tuple[tuple[int, ...], ...]
    targets: tuple[str, ...]
    shown: tuple[str, ...]
    tokens: int
    ends: tuple[str, ...] = ()

    def only(self, chosen: Sequence[int]) -> Prompted:
        """Return the prompts at the `chosen` indices."""
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in chosen),
            targets=tuple(self.targets[i] for i in chosen),
            shown=tuple(self.shown[i] for i in chosen),
        )


@dataclass(frozen=True)
class MuseEvalSet:
    """`prompted`, by the name of its metric: beginnings of documents (VerbMem) and questions (KnowMem). `members` are
    texts of the documents to forget, `holdout` may be empty. `digest` is that of the texts on which models are
    compared, whatever tokenizer reads them."""

    template: Template
    prompted: dict[str, Prompted]
    members: Texts
    holdout: Texts
    digest: str
    rouge: RougeRule

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield everything that the model reads, with the name of its row."""
        for part in self.prompted.values():
            yield from (
                (f"row {n} of {part.name}", Encoded(ids, len(ids) - 1)) for n, ids in enumerate(part.prompts, 1)
            )
        for name, texts in (("forget texts", self.members), ("holdout", self.holdout)):
            yield from texts.named(name)


def build_eval_set(rows: MuseRows, template: Template, settings: MuseBenchmark, config: Evaluation) -> MuseEvalSet:
    """Tokenise the rows of every part that `config` chooses."""
    chosen, asking = config.chosen, _Asking(template, settings, config)
    verbmem, forget_qa = chosen(rows.verbmem), chosen(rows.forget_qa)
    published = asking.beginnings("verbmem/forget", [(row.prompt, row.gt) for row in verbmem])
    known = asking.questions("forget_qa", forget_qa, rows.forget_icl)
    retained = asking.questions("retain_qa", chosen(rows.retain_qa), rows.retain_icl)
    if rows.earlier:
        prompted = {"forget_verbmem": asking.halves(chosen(rows.forget))}
        prompted |= {"earlier_verbmem": published, "earlier_knowmem": known}
    else:
        prompted = {"forget_verbmem": published, "forget_knowmem": known}
    members, holdout = chosen(rows.members), chosen(rows.holdout)
    # On these texts a model is compared with its oracle.
    first = chosen(rows.forget) if rows.earlier else [asdict(row) for row in verbmem]
    asked = [] if rows.earlier else [asdict(row) for row in (*forget_qa, *rows.forget_icl)]
    return MuseEvalSet(
        template=template,
        prompted={**prompted, "utility": retained},
        members=Texts.of(members, template, settings.window),
        holdout=Texts.of(holdout, template, settings.window),
        digest=short_digest(canonical_json([list(first), asked, members, holdout])),
        rouge=config.rouge,
    )


@dataclass(frozen=True)
class _Asking:
    template: Template
    settings: MuseBenchmark
    config: Evaluation

    def beginnings(self, name: str, pairs: Sequence[tuple[str, str]]) -> Prompted:
        """Return prompts with what follows them, as far as it is generated."""
        most = min(self.settings.verbmem_tokens, self.config.max_new_tokens)
        text = self.template.text
        targets = tuple(self.template.decode(list(text(gt)[:most])) for _, gt in pairs)  # BOS counts, as published
        shown = tuple(prompt for prompt, _ in pairs)
        return Prompted(name, tuple(map(text, shown)), targets, shown, most)

    def halves(self, documents: Sequence[str]) -> Prompted:
        """Return the first half of the first window of each document with what follows it."""
        most = min(self.settings.verbmem_tokens, self.config.max_new_tokens)
        firsts = [windows[0].ids for windows in windows_of(documents, self.template, self.settings.window)]
        decode = self.template.decode
        return Prompted(
            self.settings.forget,
            tuple(ids[: len(ids) // 2] for ids in firsts),
            tuple(decode(list(ids[len(ids) // 2 :][:most])) for ids in firsts),
            tuple(decode(list(ids[: len(ids) // 2])) for ids in firsts),
            most,
        )

    def questions(self, name: str, rows: Sequence[Row], examples: Sequence[Row]) -> Prompted:
        """Return questions behind answered ones, in the authors' format."""
        front = "".join(f"Question: {row.question}\nAnswer: {row.answer}\n\n" for row in examples)
        space = " " if self.settings.ends_with_space else ""
        prompts = tuple(self.template.text(f"{front}Question: {row.question}\nAnswer:{space}") for row in rows)
        targets, shown = tuple(row.answer for row in rows), tuple(row.question for row in rows)
        most = min(self.settings.knowmem_tokens, self.config.max_new_tokens)
        return Prompted(name, prompts, targets, shown, most, ENDS)


def continued(passages: Sequence[tuple[str, str]], template: Template, tokens: int) -> list[Encoded]:
    """Return beginnings with the first `tokens` tokens that follow, which are scored: rows to train on."""
    found = []
    for prompt, gt in passages:
        space = "" if prompt[-1:].isspace() or gt[:1].isspace() else " "
        row = template.continuation(prompt, space + gt)
        found.append(Encoded(row.ids[: row.prompt_length + tokens], row.prompt_length))
    return found
