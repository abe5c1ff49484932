"""Refusals, or other answers, that a run answers its forget questions with, drawn anew in every epoch. No torch, no
files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lethe.data.template import Encoded

NO_REFUSALS = "{} has no refusals (idontknow.jsonl, one a line)"
NO_ALTERNATIVES = (
    "benchmark.alternatives is not set: give a file of questions with other answers, perturbed, rule or generated"
)
STREAM = 1  # beside the plan's [seed, epoch]; not 0, which numpy takes for the same seed


@dataclass(frozen=True)
class Refusals:
    """The refusals of a run. `rows`: every (forget question, refusal) pair that it meets, once; `at` [epochs, forget
    rows]: the place in `rows` of a question's refusal in that epoch."""

    rows: Sequence[Encoded]
    at: np.ndarray

    def of(self, forget_row: int, epoch: int) -> tuple[int, Encoded]:
        """Return the place in `rows` of a question's pair in an epoch, counted from 1, and the pair."""
        place = int(self.at[epoch - 1, forget_row])
        return place, self.rows[place]


def draw_refusals(
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    encode: Callable[[str, str], Encoded],
    seed: int,
    epochs: int,
) -> Refusals:
    """Draw one of its `answers` for each of the forget rows' `questions`, anew in each epoch.

    `encode` gives the token ids of a question with an answer. A draw depends on (seed, row, epoch) and the numbers of
    answers alone.
    """
    counts = np.array([len(texts) for texts in answers])
    first = counts.cumsum() - counts
    drawn = np.stack([_draws(seed, epoch, counts) for epoch in range(1, epochs + 1)])
    pairs, at = np.unique(drawn + first, return_inverse=True)
    asked = np.searchsorted(first, pairs, side="right") - 1
    chosen = zip(asked.tolist(), (pairs - first[asked]).tolist(), strict=True)
    return Refusals([encode(questions[q], answers[q][a]) for q, a in chosen], at.reshape(drawn.shape))


def _draws(seed: int, epoch: int, counts: np.ndarray) -> np.ndarray:
    # numpy draws otherwise for an array of limits, and stored runs drew with one.
    limit = counts[0] if (counts == counts[0]).all() else counts
    return np.random.default_rng([seed, epoch, STREAM]).integers(limit, size=len(counts))
