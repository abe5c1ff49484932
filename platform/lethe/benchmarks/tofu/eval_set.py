"""Everything that a TOFU evaluation reads, tokenised once per study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from lethe.benchmarks.tofu.loading import TofuRows
from lethe.config.base import canonical_json, short_digest
from lethe.config.run import Evaluation, RougeRule
from lethe.data.template import Encoded, Row, Template
from lethe.errors import UserError

SPLITS = {
    "forget": "forget_eval",
    "retain": "retain_eval",
    "real_authors": "real_authors",
    "world_facts": "world_facts",
}  # prefix of a metric: field of TofuRows


@dataclass(frozen=True)
class Split:
    """Indices of a split's rows in the flat lists of pairs and prompts.

    `answer`, `paraphrase`, `prompt` [n]: an index per row; without a paraphrase it is the answer's. `perturbed`: an
    index array per row. `name` is the file's. Holdout rows have no prompt and no perturbed answers.
    """

    name: str
    rows: tuple[Row, ...]
    answer: np.ndarray
    paraphrase: np.ndarray
    perturbed: tuple[np.ndarray, ...]
    prompt: np.ndarray


@dataclass(frozen=True)
class TofuEvalSet:
    """Pairs of question and answer to score, and prompts to answer, of all splits in flat lists.

    `holdout` may have no rows. `digest` is that of the texts of forget and holdout rows, whatever tokenizer reads them.
    `rouge`: the rule of words.
    """

    template: Template
    pairs: tuple[Encoded, ...]
    prompts: tuple[tuple[int, ...], ...]
    splits: dict[str, Split]
    holdout: Split
    digest: str
    rouge: RougeRule = "tofu"

    def all_splits(self) -> dict[str, Split]:
        """Return the splits that have rows, `holdout` among them, by the prefix of their metrics."""
        return {**self.splits, **({"holdout": self.holdout} if self.holdout.rows else {})}

    def questions(self) -> list[range]:
        """Return the indices of the pairs of each row, in order: they begin alike and are best scored together."""
        starts = [int(i) for split in self.all_splits().values() for i in split.answer]
        return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(self.pairs)], strict=True)]

    def prompted(self) -> list[int]:
        """Return for every prompt the index of the pair with its true answer."""
        return [int(i) for split in self.splits.values() for i in split.answer]

    def prompts_as_scored(self) -> list[bool]:
        """Return for every prompt whether the pair with its true answer begins with the same tokens: where a token
        spans the boundary, its prompt is another."""
        pairs = (self.pairs[i] for i in self.prompted())
        return [pair.ids[: pair.prompt_length] == prompt for pair, prompt in zip(pairs, self.prompts, strict=True)]

    @property
    def own(self) -> np.ndarray:
        """Mask [pairs]: true for a row with its own answer."""
        mask = np.zeros(len(self.pairs), dtype=bool)
        for split in self.all_splits().values():
            mask[split.answer] = True
        return mask

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield every pair with the name of its row."""
        for split in self.all_splits().values():
            for number, (answer, paraphrase, wrong) in enumerate(
                zip(split.answer, split.paraphrase, split.perturbed, strict=True), 1
            ):
                where = f"row {number} of {split.name}"
                yield where, self.pairs[answer]
                if paraphrase != answer:
                    yield f"{where}, paraphrase", self.pairs[paraphrase]
                yield from ((f"{where}, wrong answer {j}", self.pairs[i]) for j, i in enumerate(wrong, 1))


def build_eval_set(benchmark: TofuRows, template: Template, config: Evaluation) -> TofuEvalSet:
    """Tokenise the rows of every split that `config` chooses. Raises UserError for rows without perturbed answers,
    whose truth ratio is undefined, and for a benchmark without forget or retain rows."""
    builder = _Builder(template)
    splits = {}
    for name, field in SPLITS.items():
        rows = config.chosen(getattr(benchmark, field))
        if rows:
            splits[name] = builder.split(benchmark.file(field), rows)
    for name in ("forget", "retain"):
        if name not in splits:
            raise UserError(
                f"benchmark {benchmark.name!r} has no {benchmark.file(SPLITS[name])} rows: there is nothing to evaluate"
            )
    holdout = builder.holdout(benchmark.file("holdout"), config.chosen(benchmark.holdout))
    texts = [[astuple(row) for row in split.rows] for split in (splits["forget"], holdout)]
    digest = short_digest(canonical_json(texts))
    return TofuEvalSet(template, tuple(builder.pairs), tuple(builder.prompts), splits, holdout, digest, config.rouge)


class _Builder:
    """Collects pairs and prompts in flat lists; its methods return the indices of what they add."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.pairs: list[Encoded] = []
        self.prompts: list[tuple[int, ...]] = []

    def pair(self, question: str, answer: str) -> int:
        self.pairs.append(self.template.encode(question, answer))
        return len(self.pairs) - 1

    def prompt(self, question: str) -> int:
        self.prompts.append(self.template.prompt(question))
        return len(self.prompts) - 1

    def split(self, name: str, rows: Sequence[Row]) -> Split:
        answer, paraphrase, perturbed, prompt = [], [], [], []
        for number, row in enumerate(rows):
            if not row.perturbed_answers:
                raise UserError(f"row {number + 1} of {name} has no perturbed answers: its truth ratio is undefined")
            answer.append(self.pair(row.question, row.answer))
            other = row.paraphrased_answer
            paraphrase.append(answer[-1] if other is None else self.pair(row.question, other))
            perturbed.append(np.array([self.pair(row.question, wrong) for wrong in row.perturbed_answers]))
            prompt.append(self.prompt(row.question))
        return Split(name, tuple(rows), np.array(answer), np.array(paraphrase), tuple(perturbed), np.array(prompt))

    def holdout(self, name: str, rows: Sequence[Row]) -> Split:
        answer = np.array([self.pair(row.question, row.answer) for row in rows], dtype=np.int64)
        none = np.empty(0, dtype=np.int64)
        return Split(name, tuple(rows), answer, answer, (none,) * len(rows), none)
