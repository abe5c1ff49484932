"""True answers among wrong ones: how often a model prefers the true one, beyond chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Self

import numpy as np

from lethe.data.template import Encoded, Row, Template


@dataclass(frozen=True)
class Choices:
    """Options of n questions: `pairs`, those of a question together; `counts` [n], how many a question has; `true`
    [n], the place of the true answer among its question's."""

    pairs: tuple[Encoded, ...]
    counts: tuple[int, ...]
    true: tuple[int, ...]

    @classmethod
    def plain(cls, template: Template, rows: Sequence[Row]) -> Self:
        """Return every option as the answer to its plain question."""
        return cls._of(rows, lambda row, texts: [template.encode(row.question, text) for text in texts])

    @classmethod
    def listed(cls, template: Template, rows: Sequence[Row], *, letters: bool, most: int) -> Self:
        """Return every option, or its letter, as the answer to its question with the list of all options: with as many
        wrong ones as a pair of at most `most` tokens takes."""

        def encoded(row: Row, texts: Sequence[str]) -> list[Encoded]:
            named = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False)]
            question = "\n".join([row.question, *named])
            pairs = [template.encode(question, text) for text in (ascii_uppercase[: len(texts)] if letters else texts)]
            return pairs if max(len(pair.ids) for pair in pairs) <= most else []

        return cls._of(rows, encoded)

    @classmethod
    def _of(cls, rows: Sequence[Row], encoded: Callable[[Row, Sequence[str]], list[Encoded]]) -> Self:
        pairs: list[Encoded] = []
        counts, true = [], []
        for number, row in enumerate(rows):
            # Wrong answers are the paraphrase with another fact, where there is one: beside it style tells nothing.
            answer = row.paraphrased_answer or row.answer
            for count in range(min(len(row.perturbed_answers), len(ascii_uppercase) - 1), 0, -1):
                place = number % (count + 1)  # evenly spread: a model that always says A is at chance
                texts = [*row.perturbed_answers[:place], answer, *row.perturbed_answers[place:count]]
                if found := encoded(row, texts):
                    pairs += found
                    counts.append(len(texts))
                    true.append(place)
                    break
        return cls(tuple(pairs), tuple(counts), tuple(true))

    def above_chance(self, losses: Sequence[float]) -> float:
        """Return (accuracy - chance) / (1 - chance) from the mean token loss of each of `pairs`: 1 where the true
        answer always costs least, 0 at chance. Options of equal loss share the choice; NaN counts as infinite."""
        costs = np.split(np.nan_to_num(np.array(losses), nan=np.inf, posinf=np.inf), np.cumsum(self.counts)[:-1])
        right = [
            float(cost[place] == cost.min()) / int((cost == cost.min()).sum())
            for cost, place in zip(costs, self.true, strict=True)
        ]
        chance = float(np.mean([1 / count for count in self.counts]))
        return (float(np.mean(right)) - chance) / (1 - chance)
