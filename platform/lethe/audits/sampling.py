"""Audit by sampling: what greedy answers no longer say may come in one of several samples. Leak@k, arXiv 2511.04934."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lethe.audits.base import AUDITS, Audited
from lethe.audits.facts import Facts, says
from lethe.config.answer_audits import Sampling
from lethe.data.template import Row
from lethe.evaluation.distributed import evaluating
from lethe.evaluation.generation import Choose, generate, most_likely
from lethe.evaluation.metrics import rouge_l_recall
from lethe.models.fisher import evenly_spread
from lethe.records import AuditRecord
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels


class Sample(NamedTuple):
    """Answer `number` of the samples of one question."""

    row: int
    number: int


@AUDITS.implements(Sampling)
def sample_answers(audited: Audited, config: Sampling) -> Iterator[AuditRecord]:
    """Compare the greedy answers to some forget questions with the best of k answers that are sampled."""
    rows = evenly_spread(range(len(audited.rows)), config.rows)
    greedy = scored(audited, [Sample(row, 0) for row in rows], most_likely)
    before = {name: float(values.mean()) for name, values in greedy.items()}
    samples = [Sample(row, number) for row in rows for number in range(config.answers)]
    for temperature in config.temperatures:
        values = scored(audited, samples, drawing(temperature, audited.recipe.seed, samples))
        for k in config.k:
            after = {
                name: float(best_of(found.reshape(len(rows), config.answers), k).mean())
                for name, found in values.items()
            }
            yield AuditRecord(variant=config.variant(k, temperature), before=before, after=after)


def scored(audited: Audited, samples: Sequence[Sample], choose: Choose) -> dict[str, np.ndarray]:
    """Return, for an answer to the question of each of `samples` [n], the ROUGE-L recall of the true one, and 1 where
    it says the key fact. Only these numbers leave a rank, no text. `choose` numbers samples by their place."""
    config, template = audited.recipe.evaluation, audited.template
    facts = Facts([row.answer for row in audited.context.benchmark.training_rows(include_forget=False)])
    asked = {sample.row: audited.rows[sample.row] for sample in samples}
    fact = {number: facts.of(row) for number, row in asked.items()}
    most = min(config.max_new_tokens, max(longest(audited, row) for row in asked.values()))

    def work(mine: Sequence[int]) -> list[tuple[float, float]]:
        def numbered(logits: Tensor, number: Tensor, place: Tensor) -> Tensor:
            return choose(logits, places[number], place)

        places = torch.tensor(list(mine), device=audited.model.device)
        prompts = [template.prompt(asked[samples[i].row].question) for i in mine]
        answers = generate(
            audited.model,
            prompts,
            stops=template.stops,
            pad=template.pad,
            max_new_tokens=most,
            token_budget=config.token_budget,
            choose=numbered,
        )
        texts = map(template.decode, answers)
        return [
            (rouge_l_recall(asked[row].answer, text, config.rouge), float(says(text, fact[row])))
            for row, text in zip((samples[i].row for i in mine), texts, strict=True)
        ]

    with evaluating(audited.model):
        rouge, said = zip(*audited.shard.map(range(len(samples)), work), strict=True)
    return {"forget_rouge": np.array(rouge), "forget_fact": np.array(said)}


def longest(audited: Audited, row: Row) -> int:
    """Return how many tokens a sampled answer may have: twice as many as the true one. A ruined model's do not end."""
    return 2 * len(audited.template.encode(row.question, row.answer).answer)


def drawing(temperature: float, seed: int, samples: Sequence[Sample]) -> Choose:
    """Return a draw from softmax(logits / temperature). Each sample has random numbers of its own, made of `seed`, its
    row, its number and the token's place: whatever batch or rank it is in, it draws the same."""
    drawn = torch.tensor(samples)

    def draw(logits: Tensor, sample: Tensor, place: Tensor) -> Tensor:
        row, number = drawn.to(sample.device)[sample].T
        return sampled_labels(logits.float() / temperature, sample_keys(seed, 0, (row << 32) + number, place))

    return draw


def best_of(values: np.ndarray, k: int) -> np.ndarray:
    """Return the unbiased estimate [rows] of the expected maximum of k draws from n of them, `values` [rows, n]: the
    mean of the maximum over all subsets of k. With k = 1 that is the mean, with k = n the maximum."""
    n = values.shape[1]
    # Of all C(n, k) subsets, C(i - 1, k - 1) have the i-th smallest value as their largest.
    weights = np.array([comb(i, k - 1) / comb(n, k) for i in range(n)])
    best: np.ndarray = np.sort(values, axis=1) @ weights
    return best
