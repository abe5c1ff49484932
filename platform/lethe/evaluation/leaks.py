"""What a model still gives away of forgotten answers, however it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from lethe.config.run import Evaluation
from lethe.data.rows import Row
from lethe.data.template import Encoded, Template
from lethe.evaluation import metrics
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import score
from lethe.evaluation.metrics import rouge_l_recall
from torch import nn


@dataclass(frozen=True)
class Questions:
    """`pairs` [n]: how likely is the answer; `prompts` [n]: what is answered; `targets` [n]: what should not be."""

    pairs: tuple[Encoded, ...]
    prompts: tuple[tuple[int, ...], ...]
    targets: tuple[str, ...]

    @classmethod
    def of(cls, template: Template, rows: Sequence[Row], questions: Sequence[str] | None = None) -> Self:
        """The rows with other questions, if any, and their own answers."""
        asked = [row.question for row in rows] if questions is None else questions
        pairs = tuple(template.encode(question, row.answer) for question, row in zip(asked, rows, strict=True))
        return cls(pairs, tuple(map(template.prompt, asked)), tuple(row.answer for row in rows))

    def only(self, chosen: Sequence[int]) -> Questions:
        """Some of them."""
        return Questions(*(tuple(part[i] for i in chosen) for part in (self.pairs, self.prompts, self.targets)))


@dataclass(frozen=True)
class Leaks:
    """Per question [n]: exp(-mean token loss), extraction strength, ROUGE-L recall of the greedy answer; the answers.

    A loss that is not a number counts as infinite; `finite` tells."""

    probability: np.ndarray
    extraction_strength: np.ndarray
    rouge: np.ndarray
    answers: tuple[str, ...]
    finite: bool

    def means(self, chosen: Sequence[int] | slice = slice(None)) -> dict[str, float]:
        """Over some questions, under the metrics' names."""
        return {
            "forget_probability": float(self.probability[chosen].mean()),
            "forget_rouge": float(self.rouge[chosen].mean()),
            "forget_extraction_strength": float(self.extraction_strength[chosen].mean()),
        }


def ask(model: nn.Module, questions: Questions, template: Template, config: Evaluation, shard: RankShard) -> Leaks:
    """Score the pairs and answer the prompts; every rank has the result."""

    def scored(pairs: Sequence[Encoded]) -> list[tuple[float, np.ndarray]]:
        scores = score(model, pairs, pad=template.pad, token_budget=config.token_budget)
        return list(zip(scores.nll_mean.tolist(), scores.correct, strict=True))

    with evaluating(model):
        loss, correct = map(list, zip(*shard.map(questions.pairs, scored), strict=True))
        answers = answered(model, questions.prompts, template, config, shard)
    return Leaks(
        probability=metrics.probability(np.array(loss)),
        extraction_strength=metrics.extraction_strength([row[:-1] for row in correct]),  # without the end of sequence
        rouge=overlap(questions.targets, answers),
        answers=answers,
        finite=not np.isnan(loss).any(),
    )


def answered(
    model: nn.Module, prompts: Sequence[tuple[int, ...]], template: Template, config: Evaluation, shard: RankShard
) -> tuple[str, ...]:
    """Greedy answers; the model is in eval mode."""

    def continued(some: Sequence[tuple[int, ...]]) -> list[list[int]]:
        most, budget = config.max_new_tokens, config.token_budget
        return generate(model, some, eos=template.eos, pad=template.pad, max_new_tokens=most, token_budget=budget)

    return tuple(template.decode(ids) for ids in shard.map(prompts, continued))


def overlap(targets: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """ROUGE-L recall [n]."""
    return np.array([rouge_l_recall(target, answer) for target, answer in zip(targets, answers, strict=True)])
