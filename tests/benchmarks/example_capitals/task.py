"""The example as one tokenizer reads it, with its evaluation: `lethe.benchmarks.base.Task`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import nn

from lethe.benchmarks.base import EvaluationResult, ReferenceValues, Task
from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Row, Template
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.leaks import Leaks, Questions, ask
from lethe.evaluation.rows import stack_splits


@dataclass(frozen=True)
class CapitalsReference(ReferenceValues):
    """The oracle's probability of the capitals to forget."""

    forget: float

    def dump(self) -> dict[str, float]:
        """Return the value as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CapitalsEvalSet:
    """The evaluated rows, as questions that a model is asked."""

    template: Template
    forget: Questions
    retain: Questions

    def named_rows(self) -> Iterator[tuple[str, Encoded]]:
        """Yield every row with its name."""
        for name, questions in (("forget", self.forget), ("retain", self.retain)):
            yield from ((f"row {number} of {name}", row) for number, row in enumerate(questions.pairs, 1))


@dataclass(frozen=True)
class CapitalsTask(Task[CapitalsEvalSet, CapitalsReference]):
    """Questions for capitals; trials are compared with the oracle."""

    forget_rows: tuple[Row, ...]
    retain_rows: tuple[Row, ...]
    template: Template

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget rows."""
        return [self.template.encode(row.question, row.answer) for row in self.forget_rows]

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain rows."""
        return [self.template.encode(row.question, row.answer) for row in self.retain_rows]

    def eval_set(self, config: Evaluation) -> CapitalsEvalSet:
        """Tokenise the rows of both parts that `config` chooses."""
        parts = (Questions.of(self.template, config.chosen(rows)) for rows in (self.forget_rows, self.retain_rows))
        return CapitalsEvalSet(self.template, *parts)

    def _evaluate(
        self,
        model: nn.Module,
        evals: CapitalsEvalSet,
        config: Evaluation,
        reference: CapitalsReference | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        forget, retain = (ask(model, part, self.template, config, shard) for part in (evals.forget, evals.retain))
        own = CapitalsReference(float(forget.probability.mean()))
        gap = {} if reference is None else {"forget_gap": abs(own.forget - reference.forget)}
        return EvaluationResult(
            metrics={"forget": own.forget, "utility": float(retain.probability.mean()), **gap},
            finite=forget.finite and retain.finite,
            rows=stack_splits({"forget": _columns(evals.forget, forget), "retain": _columns(evals.retain, retain)}),
            reference=own,
        )

    def reference_values(self, stored: Any, evals: CapitalsEvalSet) -> CapitalsReference | None:
        """Read the oracle's value."""
        return None if stored is None else CapitalsReference(**stored)

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return the evaluated forget rows."""
        return list(config.chosen(self.forget))

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: CapitalsReference | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure the probability of the chosen rows' answers."""
        questions = self.eval_set(config).forget.only(chosen)
        return {"forget_probability": float(ask(model, questions, self.template, config, shard).probability.mean())}


def _columns(questions: Questions, leaks: Leaks) -> dict[str, Sequence[Any]]:
    return {
        "question": [str(number) for number in range(len(questions.targets))],
        "answer": questions.targets,
        "generated": leaks.answers,
        "probability": leaks.probability.tolist(),
    }
