"""Everything an evaluation reads, tokenised once per study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lethe.config.evaluation import Evaluation
from lethe.data.rows import Benchmark, Row
from lethe.data.template import Encoded, Template
from lethe.errors import BadInput

SPLITS = {
    "forget": "forget_eval",
    "retain": "retain_eval",
    "real_authors": "real_authors",
    "world_facts": "world_facts",
}  # a metric's prefix: the benchmark's field


@dataclass(frozen=True)
class Split:
    """Where a split's rows are in the flat lists of pairs and prompts.

    `answer`, `paraphrase`, `prompt` [n]: indices (a row without a paraphrase has its answer's); `perturbed`: one
    index array per row.
    """

    rows: tuple[Row, ...]
    answer: np.ndarray
    paraphrase: np.ndarray
    perturbed: tuple[np.ndarray, ...]
    prompt: np.ndarray


@dataclass(frozen=True)
class EvalSet:
    """`pairs` to score and `prompts` to answer, flat; `holdout` [m]: pairs that no model was trained on."""

    template: Template
    pairs: tuple[Encoded, ...]
    prompts: tuple[tuple[int, ...], ...]
    splits: dict[str, Split]
    holdout: np.ndarray


def build_eval_set(benchmark: Benchmark, template: Template, config: Evaluation) -> EvalSet:
    """Tokenise the first `max_rows` of every split. Raises BadInput for rows that have no truth ratio."""
    builder = _Builder(template)
    splits = {}
    for name, field in SPLITS.items():
        rows = getattr(benchmark, field)[: config.max_rows]
        if rows:
            splits[name] = builder.split(field, rows)
    for name in ("forget", "retain"):
        if name not in splits:
            raise BadInput(f"benchmark {benchmark.name!r} has no {SPLITS[name]} rows: there is nothing to evaluate")
    holdout = [builder.pair(row.question, row.answer) for row in benchmark.holdout[: config.max_rows]]
    return EvalSet(template, tuple(builder.pairs), tuple(builder.prompts), splits, np.array(holdout, dtype=np.int64))


class _Builder:
    """Collects pairs and prompts and gives their indices."""

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
                raise BadInput(f"row {number + 1} of {name} has no perturbed answers: its truth ratio is undefined")
            answer.append(self.pair(row.question, row.answer))
            other = row.paraphrased_answer
            paraphrase.append(answer[-1] if other is None else self.pair(row.question, other))
            perturbed.append(np.array([self.pair(row.question, wrong) for wrong in row.perturbed_answers]))
            prompt.append(self.prompt(row.question))
        return Split(tuple(rows), np.array(answer), np.array(paraphrase), tuple(perturbed), np.array(prompt))
