"""What a TDEC evaluation found of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lethe.evaluation.metrics import losses
from lethe.evaluation.rows import Columns, stacked

if TYPE_CHECKING:
    from lethe.evaluation.tdec import TdecSet


@dataclass(frozen=True)
class Likelihoods:
    """Summed NLL and number of tokens [n, 2] of each validation text and of each end of a question."""

    text: np.ndarray
    options: np.ndarray

    @property
    def loss(self) -> float:
        """Mean token loss on validation text."""
        return float(self.text[:, 0].sum() / self.text[:, 1].sum())

    @property
    def option_loss(self) -> np.ndarray:
        """Mean token loss of every end, infinite where it is no number."""
        return losses(self.options[:, 0] / self.options[:, 1])

    def right(self, evals: TdecSet) -> list[bool]:
        """Whether each question's right end is the likeliest per token."""
        own = (self.option_loss[evals.asked == i] for i in range(len(evals.questions)))
        return [int(loss.argmin()) == q.answer for loss, q in zip(own, evals.questions, strict=True)]


def tdec_rows(
    evals: TdecSet,
    ma: np.ndarray,
    el: np.ndarray | None,
    whole: Sequence[Sequence[int]],
    scored: Likelihoods,
    replies: Sequence[str],
    f1: Sequence[float],
) -> Columns:
    """Forget: a sequence's first half, the true rest and the model's, MA and EL. Validation: text, mean token loss,
    tokens. Dialogue: context, reference, reply, F1. Choice: question, right end, its place and each end's loss."""
    half, decode = evals.settings.length // 2, evals.template.decode
    ends = [scored.option_loss[evals.asked == i] for i in range(len(evals.questions))]
    parts: dict[str, dict[str, Sequence[Any]]] = {
        "forget": {
            "question": [decode(row[:half]) for row in evals.forget.tolist()],
            "answer": [decode(row[half:]) for row in evals.forget.tolist()],
            "generated": [decode(list(row[half:])) for row in whole],
            "memorization_accuracy": ma,
            **({"extraction_likelihood": el} if el is not None else {}),
        },
        "validation": {
            "question": [decode(list(row.ids)) for row in evals.validation],
            "loss": scored.text[:, 0] / scored.text[:, 1],
            "tokens": scored.text[:, 1].astype(np.int64),
        },
        "dialogue": {
            "question": [turn.context for turn in evals.turns],
            "answer": [turn.response.strip() for turn in evals.turns],
            "generated": list(replies),
            "f1": list(f1),
        },
        "choice": {
            "question": [q.question for q in evals.questions],
            "answer": [q.choices[q.answer] for q in evals.questions],
            "right_end": [q.answer for q in evals.questions],
            "end_loss": ends,
        },
    }
    return stacked(parts)
