"""Everything that a TDEC evaluation reads, tokenised once per study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lethe.benchmarks.tdec.loading import Passages, Question, Sequences, Turn
from lethe.config.benchmark import TdecBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Template


@dataclass(frozen=True)
class TdecEvalSet:
    """Token ids of all parts.

    `forget`, `unseen`: sequences [rows, length]; EL is measured on a `share` of them, MA on all. `prompts[i]`: context
    of `turns[i]`. `options`: ends of questions, with the question in front; `options[i]` belongs to
    `questions[asked[i]]`.
    """

    template: Template
    settings: TdecBenchmark
    forget: np.ndarray
    unseen: np.ndarray
    validation: tuple[Encoded, ...]
    turns: tuple[Turn, ...]
    prompts: tuple[tuple[int, ...], ...]
    questions: tuple[Question, ...]
    options: tuple[Encoded, ...]
    asked: np.ndarray
    share: float = 1.0

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield everything that the model reads, with the name of its row."""
        for name in ("forget", "unseen"):
            yield from ((f"row {n} of {name}", row) for n, row in enumerate(whole_rows(getattr(self, name)), 1))
        yield from ((f"row {n} of validation", row) for n, row in enumerate(self.validation, 1))
        yield from ((f"row {n} of dialogue", Encoded(ids, len(ids) - 1)) for n, ids in enumerate(self.prompts, 1))
        yield from ((f"row {n + 1} of choice", row) for n, row in zip(self.asked, self.options, strict=True))


def build_eval_set(
    passages: Passages, sequences: Sequences, template: Template, settings: TdecBenchmark, config: Evaluation
) -> TdecEvalSet:
    """Tokenise the validation text, turns and questions that `config` chooses, and all forget and unseen sequences."""
    turns, questions = tuple(config.chosen(passages.dialogue)), tuple(config.chosen(passages.choice))
    validation = sequences.validation[np.array(config.chosen(range(len(sequences.validation))), dtype=np.int64)]
    ends = [(i, template.continuation(q.question, choice)) for i, q in enumerate(questions) for choice in q.choices]
    return TdecEvalSet(
        template=template,
        settings=settings,
        forget=sequences.forget,
        unseen=sequences.unseen,
        validation=whole_rows(validation),
        turns=turns,
        prompts=tuple(template.text(turn.context) for turn in turns),
        questions=questions,
        options=tuple(row for _, row in ends),
        asked=np.array([i for i, _ in ends], dtype=np.int64),
        share=config.share,
    )


def whole_rows(ids: np.ndarray) -> tuple[Encoded, ...]:
    """Return sequences [rows, length] as rows of which every token but the first is predicted."""
    return tuple(Encoded(tuple(row), 1) for row in ids.tolist())
