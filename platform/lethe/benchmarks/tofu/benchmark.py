"""TOFU behind the interface of `lethe.benchmarks.base`: data, capabilities, comparison of stored scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lethe.benchmarks.base import Benchmark
from lethe.benchmarks.tofu.eval_set import SPLITS
from lethe.benchmarks.tofu.loading import TofuRows, load_rows, training_rows
from lethe.config.benchmark import PERTURBED, TofuBenchmark
from lethe.config.metrics import Need
from lethe.data.template import Row
from lethe.data.words import has_other_letters, same_text
from lethe.errors import UserError
from lethe.evaluation.answer_length import cut_answers, refuse_wordless
from lethe.evaluation.metrics import reference_words

if TYPE_CHECKING:
    from lethe.benchmarks.tofu.evaluation import TofuTask
    from lethe.config.run import Evaluation
    from lethe.data.template import Template

TRAINED_ON = (
    "benchmark.alternatives is perturbed: altpo trains on the wrong answers that truth ratio and forget quality read,"
    " which then say little"
)


@dataclass(frozen=True)
class Tofu(Benchmark):
    """Questions and answers about authors; models are compared with an oracle."""

    config: TofuBenchmark
    rows: TofuRows

    shown_samples: ClassVar[Mapping[str, int]] = {"forget": 4, "retain": 2, "world_facts": 5}

    @classmethod
    def load(cls, config: TofuBenchmark) -> Self:
        """Read all splits."""
        return cls(config, load_rows(config))

    @property
    def digest(self) -> str:
        """Digest of the rows of all splits and of the refusals."""
        return self.rows.digest

    def training_rows(self, include_forget: bool) -> tuple[Row, ...]:
        """Return retain and forget rows, facts and paraphrases: see `lethe.benchmarks.tofu.loading.training_rows`."""
        return training_rows(self.rows, include_forget)

    def texts(self, forget_only: bool) -> Iterator[str]:
        """Yield questions and answers of the rows, with paraphrases, wrong answers and alternatives."""
        names = ("forget", "forget_eval", *(() if forget_only else ("retain", "holdout", *SPLITS.values())))
        yield from (text for name in names for row in getattr(self.rows, name) for text in row.texts)
        yield from (text for texts in self.rows.alternatives for text in texts)

    def task(self, template: Template, vocabulary: int) -> TofuTask:
        """Return the rows as `template` renders them. `vocabulary` is not read: all rows are text."""
        from lethe.benchmarks.tofu.evaluation import TofuTask  # imports torch

        return TofuTask(self.rows, template)

    @property
    def forget_texts(self) -> tuple[tuple[str, ...], ...]:
        """Question and answer of each forget row that is trained on."""
        return tuple((row.question, row.answer) for row in self.rows.forget)

    def forget_count(self, config: Evaluation) -> int:
        """Return the number of forget rows with variants."""
        return len(self.asked(config))

    def check_rows(self, config: Evaluation) -> None:
        """Raise UserError for an evaluated answer without a word, whose ROUGE would be 0 whatever a model says."""
        for split, rows in self._evaluated(config):
            refuse_wordless(split, [row.answer for row in rows], config.rouge)

    def notes(self, config: Evaluation, template: Template) -> Iterator[str]:
        """Yield how many forget rows have no variants, how many answers have letters that ROUGE leaves out, and how
        many are longer than generated ones can be."""
        evaluated = {same_text(row.question) for row in self.rows.forget_eval}
        if bare := sum(same_text(row.question) not in evaluated for row in self.rows.forget):
            yield (
                f"{bare} of {len(self.rows.forget)} rows of {self.rows.file('forget')} are not in"
                f" {self.rows.file('forget_eval')}: they are forgotten, and no metric reads them"
            )
        rows = [row for _, rows in self._evaluated(config) for row in rows]
        by_tofu = [row.answer for row in rows if reference_words(row.answer, config.rouge)[0] == "tofu"]
        if lossy := sum(map(has_other_letters, by_tofu)):
            yield (
                f"{lossy} of {len(rows)} evaluated answers have letters that ROUGE leaves out, as published for TOFU"
                " (run.evaluation.rouge: unicode counts them)"
            )
        if self.config.alternatives == PERTURBED:
            yield TRAINED_ON
        yield from cut_answers([(row.question, row.answer) for row in rows], config, template)

    def _evaluated(self, config: Evaluation) -> Iterator[tuple[str, tuple[Row, ...]]]:
        """Yield the rows whose answers are generated, by the names of their splits."""
        for field in SPLITS.values():
            yield self.rows.file(field), tuple(config.chosen(getattr(self.rows, field)))

    def reference_metrics(self, own: Any, reference: Any) -> dict[str, float]:
        """Return forget quality and, with holdout rows, reference membership and privacy leakage of a model against
        an oracle. Raises UserError for an oracle that is no trained model, or was scored on other rows."""
        from lethe.benchmarks.tofu.metrics import ReferenceScores, reference_metrics  # imports torch

        model, oracle = ReferenceScores.load(own), ReferenceScores.load(reference)
        if not oracle.finite:
            raise UserError("the oracle's truth ratios are not finite: is it a trained model?")
        oracle.check(model.digest, len(model.forget_truth_ratio))
        return reference_metrics(model, oracle)

    @property
    def missing(self) -> tuple[Need, ...]:
        """Optional splits that these data do not have."""
        return tuple(name for name in ("holdout", "real_authors", "world_facts") if not getattr(self.rows, name))

    @property
    def refusals(self) -> tuple[str, ...]:
        """Texts of idontknow.jsonl."""
        return self.rows.refusals

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Other answers to each forget question, if the configuration asks for them."""
        return self.rows.alternatives

    @property
    def forget_questions(self) -> tuple[str, ...]:
        """Questions of the forget rows that are trained on."""
        return tuple(row.question for row in self.rows.forget)

    @property
    def retain_questions(self) -> tuple[str, ...]:
        """Questions of the retain rows that are trained on."""
        return tuple(row.question for row in self.rows.retain)

    @property
    def questions(self) -> Sequence[tuple[str, Row]]:
        """The forget rows with variants."""
        file = self.rows.file("forget_eval")
        return [(f"row {number} of {file}", row) for number, row in enumerate(self.rows.forget_eval, 1)]

    @property
    def has_holdout(self) -> bool:
        """True if there are holdout rows."""
        return bool(self.rows.holdout)
