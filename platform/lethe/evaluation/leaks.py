"""Likelihoods and greedy answers of a model to questions with known answers: what is left of forgotten rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import nn

from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Row, Template
from lethe.evaluation import metrics
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate
from lethe.evaluation.likelihood import score
from lethe.evaluation.metrics import rouge_l_recall


@dataclass(frozen=True)
class Questions:
    """Questions with their true answers [n]: `pairs` to score, `prompts` to answer, `targets` to compare with."""

    pairs: tuple[Encoded, ...]
    prompts: tuple[tuple[int, ...], ...]
    targets: tuple[str, ...]

    @classmethod
    def of(cls, template: Template, rows: Sequence[Row], questions: Sequence[str] | None = None) -> Self:
        """Tokenise the rows' answers, with `questions` in place of the rows' own if given."""
        asked = [row.question for row in rows] if questions is None else questions
        pairs = tuple(template.encode(question, row.answer) for question, row in zip(asked, rows, strict=True))
        return cls(pairs, tuple(map(template.prompt, asked)), tuple(row.answer for row in rows))

    def only(self, chosen: Sequence[int]) -> Questions:
        """Return the questions at the `chosen` indices."""
        return Questions(
            pairs=tuple(self.pairs[i] for i in chosen),
            prompts=tuple(self.prompts[i] for i in chosen),
            targets=tuple(self.targets[i] for i in chosen),
        )


@dataclass(frozen=True)
class Leaks:
    """Values per question [n]: exp(-mean token loss), extraction strength, ROUGE-L recall of the greedy answer, and the
    greedy answers.

    A loss that is not a number counts as infinite, and `finite` is False."""

    probability: np.ndarray
    extraction_strength: np.ndarray
    rouge: np.ndarray
    answers: tuple[str, ...]
    finite: bool

    def means(self, chosen: Sequence[int] | slice = slice(None)) -> dict[str, float]:
        """Return the means over the `chosen` questions, under the names of metrics."""
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
        rouge=overlap(questions.targets, answers, config),
        answers=answers,
        finite=not np.isnan(loss).any(),
    )


def answered(
    model: nn.Module, prompts: Sequence[tuple[int, ...]], template: Template, config: Evaluation, shard: RankShard
) -> tuple[str, ...]:
    """Return the greedy answers to `prompts`, on every rank. Put the model in eval mode first."""

    def continued(some: Sequence[tuple[int, ...]]) -> list[list[int]]:
        most, budget = config.max_new_tokens, config.token_budget
        return generate(model, some, stops=template.stops, pad=template.pad, max_new_tokens=most, token_budget=budget)

    return tuple(template.decode(ids) for ids in shard.map(prompts, continued))


def overlap(targets: Sequence[str], answers: Sequence[str], config: Evaluation) -> np.ndarray:
    """Return the ROUGE-L recall [n] of each target in its answer, by the words of `config.rouge`."""
    pairs = zip(targets, answers, strict=True)
    return np.array([rouge_l_recall(target, answer, config.rouge) for target, answer in pairs])
