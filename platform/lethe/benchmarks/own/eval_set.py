"""Everything that an evaluation of one's own rows reads, tokenised once per study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lethe.benchmarks.own.loading import PartName
from lethe.config.own import OwnBenchmark
from lethe.config.run import Evaluation, RougeRule
from lethe.data.source_rows import Completion, Document, SourceRow
from lethe.data.sources import Source
from lethe.data.template import Encoded, Template
from lethe.data.windows import encode_row
from lethe.evaluation.metrics import reference_words

NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Prompt:
    """Tokens that a model goes on from, and the text that follows them in the row.

    `pair`: the pair in which both stand; the text's tokens are the `length` scored ones from `begins` on. `known`: that
    pair begins with the prompt's tokens. `has_end`: the text has an end of sequence; without one as many tokens are
    generated as it has.
    """

    ids: tuple[int, ...]
    target: str
    pair: int
    begins: int
    length: int
    known: bool
    has_end: bool


@dataclass(frozen=True)
class Part:
    """The evaluated rows of one part, with indices into the flat lists of pairs and prompts.

    `pairs`, `prompts` [n]: an index array per row, of several for a document's windows; `paraphrase` [n]: an index, the
    row's own first pair where there is none; `wrong` [n]: an index array, empty without wrong answers. `texts`: what a
    row answers, and what tables show as its question and answer. `has_end`: the last scored token of a pair is an end
    of sequence.
    """

    rows: tuple[SourceRow, ...]
    texts: tuple[tuple[str, str], ...]
    pairs: tuple[np.ndarray, ...]
    prompts: tuple[np.ndarray, ...]
    paraphrase: np.ndarray
    wrong: tuple[np.ndarray, ...]
    has_end: bool


@dataclass(frozen=True)
class OwnEvalSet:
    """Pairs to score and prompts to go on from, of all parts in flat lists; `names` are the pairs'.

    `groups`: the pairs of each row, which are scored together. `digest` names the data and which rows are read.
    """

    template: Template
    pairs: tuple[Encoded, ...]
    names: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    parts: Mapping[PartName, Part]
    groups: tuple[range, ...]
    digest: str
    rouge: RougeRule

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield every pair with its name."""
        yield from zip(self.names, self.pairs, strict=True)

    @property
    def attacked(self) -> np.ndarray:
        """Mask [pairs]: true for those of the rows that membership attacks compare."""
        mask = np.zeros(len(self.pairs), dtype=bool)
        for name in ("forget", "holdout"):
            for pairs in self.parts[name].pairs if name in self.parts else ():
                mask[pairs] = True
        return mask


def encode(row: SourceRow, template: Template, config: OwnBenchmark) -> list[Encoded]:
    """Return the row as `template`'s tokenizer reads it: a document in windows, any other in one piece. Raises
    UserError as `encode_row` does."""
    return encode_row(row, template, config.window, config.overlap)


def build_eval_set(
    parts: Mapping[PartName, Source], template: Template, config: OwnBenchmark, evaluation: Evaluation, digest: str
) -> OwnEvalSet:
    """Tokenise the rows of every part that `evaluation` chooses; models are not asked to go on from general text."""
    builder = _Builder(template, config, evaluation)
    built = {name: builder.part(name, source) for name, source in parts.items()}
    return OwnEvalSet(
        template=template,
        pairs=tuple(builder.pairs),
        names=tuple(builder.names),
        prompts=tuple(builder.prompts),
        parts=built,
        groups=tuple(builder.groups),
        digest=f"{digest}:{evaluation.max_rows}" + (f":{evaluation.share:g}" if evaluation.share < 1 else ""),
        rouge=evaluation.rouge,
    )


class _Builder:
    """Collects pairs and prompts in flat lists."""

    def __init__(self, template: Template, config: OwnBenchmark, evaluation: Evaluation) -> None:
        self.template, self.config, self.evaluation = template, config, evaluation
        self.pairs: list[Encoded] = []
        self.names: list[str] = []
        self.prompts: list[Prompt] = []
        self.groups: list[range] = []

    def part(self, name: PartName, source: Source) -> Part:
        """Add the first rows of a part."""
        rows = tuple(self.evaluation.chosen(source.rows))
        pairs, prompts, paraphrase, wrong, texts = [], [], [], [], []
        for row in rows:
            first = len(self.pairs)
            own = self._add(row.name, encode(row, self.template, self.config))
            other, others = self._variants(row) if name == "forget" else (NONE, NONE)
            self.groups.append(range(first, len(self.pairs)))
            asked = [] if name == "general" else self._prompts(row, own)
            pairs.append(own)
            prompts.append(np.arange(len(self.prompts), len(self.prompts) + len(asked)))
            paraphrase.append(int(other[0] if len(other) else own[0]))
            wrong.append(others)
            texts.append(self._texts(row, asked))
            self.prompts += asked
        has_end = source.kind in ("questions", "chats")
        indices = np.array(paraphrase, dtype=np.int64)
        return Part(rows, tuple(texts), tuple(pairs), tuple(prompts), indices, tuple(wrong), has_end)

    def _add(self, name: str, pairs: Sequence[Encoded]) -> np.ndarray:
        first = len(self.pairs)
        self.pairs += pairs
        self.names += [name if len(pairs) == 1 else f"{name}, window {n}" for n in range(1, len(pairs) + 1)]
        return np.arange(first, len(self.pairs))

    def _variants(self, row: SourceRow) -> tuple[np.ndarray, np.ndarray]:
        """Add the row with its paraphrase and with its wrong answers, if it has them."""
        if isinstance(row, Document):
            return NONE, NONE
        other = [row.paraphrased_answer] if row.paraphrased_answer else []
        named = {"paraphrase": other, "wrong answer": row.perturbed_answers}
        first, second = (
            [self._add(f"{row.name}, {what} {n}", [self._with_answer(row, text)]) for n, text in enumerate(texts, 1)]
            for what, texts in named.items()
        )
        return np.concatenate([NONE, *first]), np.concatenate([NONE, *second])

    def _with_answer(self, row: SourceRow, answer: str) -> Encoded:
        assert not isinstance(row, Document)
        if isinstance(row, Completion):
            return self.template.continuation(row.prompt, answer)
        return self.template.encode(row.question, answer)

    def _prompts(self, row: SourceRow, pairs: np.ndarray) -> list[Prompt]:
        """Return what is asked of a row: its question; of a document the first half of every window, behind which the
        other half follows. A prompt is left out where no word follows."""
        if isinstance(row, Document):
            asked = [self._halved(int(number)) for number in pairs]
        elif isinstance(row, Completion):
            asked = [self._continued(int(pairs[0]), 0)]
        else:
            number, ids = int(pairs[0]), self.template.prompt(row.question)
            pair = self.pairs[number]
            known = pair.ids[: pair.prompt_length] == ids
            asked = [Prompt(ids, row.answer, number, 0, len(pair.answer), known, has_end=True)]
        return [prompt for prompt in asked if reference_words(prompt.target, self.evaluation.rouge)[1]]

    def _halved(self, number: int) -> Prompt:
        pair = self.pairs[number]
        return self._continued(number, max(0, len(pair.ids) // 2 - pair.prompt_length))

    def _continued(self, number: int, begins: int) -> Prompt:
        """Return the prompt that ends before scored token `begins` of a pair of plain text."""
        pair = self.pairs[number]
        at = pair.prompt_length + begins
        following = list(pair.ids[at : at + self.evaluation.max_new_tokens])
        target = self.template.decode(following)
        return Prompt(pair.ids[:at], target, number, begins, len(following), known=True, has_end=False)

    def _texts(self, row: SourceRow, asked: Sequence[Prompt]) -> tuple[str, str]:
        """Return what tables show as a row's question and answer."""
        if isinstance(row, Document):
            return (self.template.decode(list(asked[0].ids)), asked[0].target) if asked else (row.text, "")
        return question_of(row), row.answer


def question_of(row: SourceRow) -> str:
    """Return what stands before a row's answer as text, a conversation a turn a line; nothing before a document."""
    if isinstance(row, Document):
        return ""
    if isinstance(row, Completion):
        return row.prompt
    return row.question if isinstance(row.question, str) else "\n".join(text for _, text in row.question)


def answer_of(row: SourceRow) -> str:
    """Return the text of a row that is forgotten, kept or compared."""
    return row.text if isinstance(row, Document) else row.answer
