"""TOFU as one tokenizer reads it, and one evaluation of a model: forward passes that all metrics share, then the
metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from lethe.benchmarks.base import EvaluationResult, Task
from lethe.benchmarks.tofu.eval_set import Split, TofuEvalSet, build_eval_set
from lethe.benchmarks.tofu.loading import TofuRows
from lethe.benchmarks.tofu.metrics import (
    METRIC_GROUPS,
    Evaluated,
    ReferenceScores,
    SplitScores,
    model_utility,
    reference_metrics,
    split_metrics,
)
from lethe.config.run import Evaluation, RougeRule
from lethe.data.template import Encoded, Row, Template
from lethe.evaluation import metrics
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate, known_beginning
from lethe.evaluation.leaks import Questions, ask
from lethe.evaluation.likelihood import LikelihoodScores, score
from lethe.evaluation.membership import gradient_norms, signals
from lethe.evaluation.metrics import loss_difference, rouge_l_recall
from lethe.evaluation.rows import stack_splits

ONE_RANK = RankShard()


@dataclass(frozen=True)
class TofuTask(Task[TofuEvalSet, ReferenceScores]):
    """Questions and answers; trials are compared with the oracle's scores."""

    rows: TofuRows
    template: Template

    @cached_property
    def forget(self) -> list[Encoded]:
        """All forget rows, without variants."""
        return self._encoded(self.rows.forget)

    @cached_property
    def retain(self) -> list[Encoded]:
        """All retain rows, without variants."""
        return self._encoded(self.rows.retain)

    @cached_property
    def holdout(self) -> list[Encoded]:
        """Rows about authors that no model was trained on."""
        return self._encoded(self.rows.holdout)

    def eval_set(self, config: Evaluation) -> TofuEvalSet:
        """Tokenise the rows of every split that `config` chooses."""
        return build_eval_set(self.rows, self.template, config)

    def _evaluate(
        self,
        model: nn.Module,
        evals: TofuEvalSet,
        config: Evaluation,
        reference: ReferenceScores | None,
        shard: RankShard,
        *,
        last: bool,
    ) -> EvaluationResult:
        return evaluate(model, evals, config, reference, shard)

    def reference_values(self, stored: Any, evals: TofuEvalSet) -> ReferenceScores | None:
        """Read an oracle's scores, and check that they are scores of the rows of `evals`."""
        if stored is None:
            return None
        reference = ReferenceScores.load(stored)
        reference.check(evals.digest, len(evals.splits["forget"].rows))
        return reference

    def evaluated_forget(self, config: Evaluation) -> list[Encoded]:
        """Return the forget rows with variants that are evaluated."""
        return self._encoded(config.chosen(self.rows.forget_eval))

    def leaks(
        self,
        model: nn.Module,
        chosen: Sequence[int],
        config: Evaluation,
        reference: ReferenceScores | None,
        shard: RankShard,
    ) -> dict[str, float]:
        """Measure probability, extraction strength and ROUGE of the chosen rows' answers."""
        questions = Questions.of(self.template, config.chosen(self.rows.forget_eval)).only(chosen)
        return ask(model, questions, self.template, config, shard).means()

    def _encoded(self, rows: Sequence[Row]) -> list[Encoded]:
        return [self.template.encode(row.question, row.answer) for row in rows]


def evaluate(
    model: nn.Module,
    eval_set: TofuEvalSet,
    config: Evaluation,
    oracle: ReferenceScores | None,
    shard: RankShard = ONE_RANK,
) -> EvaluationResult:
    """Score `model` on all pairs and let it answer all prompts, in its own dtype and on its own device; its modes and
    weights are left as they were.

    The result's `reference` are the model's own scores, as an oracle for others. Where a forward pass is a collective
    (ZeRO-3) every rank has to do the whole work: give it `ONE_RANK`. Raises UserError for rows that the model cannot
    read and for an `oracle` that was scored on other rows.
    """
    check_context_length(eval_set.named_rows(), ContextLimits.of(model))
    if oracle is not None:
        oracle.check(eval_set.digest, len(eval_set.splits["forget"].rows))
    template, budget, own = eval_set.template, config.token_budget, eval_set.own

    def score_rows(rows: Sequence[Sequence[int]]) -> list[list[tuple[np.ndarray, ...]]]:
        """Per row, the values of each of its pairs, which begin alike and are scored together."""
        numbers = [number for row in rows for number in row]
        pairs = [eval_set.pairs[number] for number in numbers]
        scores = score(model, pairs, pad=template.pad, token_budget=budget, standardised=own[numbers].tolist())
        values = zip(scores.logp, scores.correct, scores.guess, scores.standard, strict=True)
        return [list(islice(values, len(row))) for row in rows]

    def answer_prompts(asked: Sequence[tuple[tuple[int, ...], Sequence[int]]]) -> list[list[int]]:
        return generate(
            model,
            [prompt for prompt, _ in asked],
            stops=template.stops,
            pad=template.pad,
            max_new_tokens=config.max_new_tokens,
            token_budget=budget,
            begun=[begun for _, begun in asked],
        )

    members = {"forget": eval_set.splits["forget"], "holdout": eval_set.holdout} if config.gradnorm else {}
    norms = {}
    with evaluating(model):
        scored = chain.from_iterable(shard.map(eval_set.questions(), score_rows))
        scores = LikelihoodScores(*map(list, zip(*scored, strict=True)))
        # Teacher forcing has shown already how a greedy answer begins: up to the first wrong guess.
        begun = [
            known_beginning(eval_set.pairs[i].answer, scores.guess[i].tolist()) if same else []
            for i, same in zip(eval_set.prompted(), eval_set.prompts_as_scored(), strict=True)
        ]
        answers = shard.map(list(zip(eval_set.prompts, begun, strict=True)), answer_prompts)
        for name, split in members.items():
            pairs = [eval_set.pairs[i] for i in split.answer]
            norms[name] = np.array(shard.map(pairs, lambda some: gradient_norms(model, some)))
    return measure(eval_set, scores, [template.decode(answer) for answer in answers], oracle, norms)


def measure(
    eval_set: TofuEvalSet,
    scores: LikelihoodScores,
    answers: Sequence[str],
    oracle: ReferenceScores | None,
    gradnorm: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> EvaluationResult:
    """Compute every metric from the `scores` of all pairs, the `answers` to all prompts and, by split, the gradient
    norms [rows]. A loss that is not a number counts as infinite."""
    loss = metrics.losses(scores.nll_mean)
    parts = {name: _own_columns(split, scores) for name, split in eval_set.all_splits().items()}
    for name in parts.keys() & gradnorm.keys():
        parts[name]["gradnorm"] = metrics.losses(gradnorm[name])
    values: dict[str, float] = {}
    for name, split in eval_set.splits.items():
        split_scores = _split_scores(split, loss, answers, eval_set.rouge)
        values |= split_metrics(name, split_scores)
        parts[name] |= _answer_columns(split, split_scores, answers)
    values["utility"] = model_utility(values)
    evaluated = Evaluated(eval_set, scores, loss, answers, parts)
    for compute in METRIC_GROUPS:
        values |= compute(evaluated)
    forget, holdout = parts["forget"], parts.get("holdout")
    own = ReferenceScores(
        digest=eval_set.digest,
        forget_truth_ratio=forget["truth_ratio"],
        forget_loss=forget["loss"],
        holdout_loss=holdout["loss"] if holdout else np.empty(0),
        mia_min_k=values.get("mia_min_k"),
    )
    if oracle is not None:
        values |= reference_metrics(own, oracle)
        forget["reference"] = loss_difference(own.forget_loss, oracle.forget_loss)
        if holdout:
            holdout["reference"] = loss_difference(own.holdout_loss, oracle.holdout_loss)
    finite = not bool(np.isnan(own.forget_truth_ratio).any())
    return EvaluationResult(metrics=values, finite=finite, rows=stack_splits(parts), reference=own)


def _split_scores(split: Split, loss: np.ndarray, answers: Sequence[str], rule: RougeRule) -> SplitScores:
    rouge = [rouge_l_recall(row.answer, answers[i], rule) for row, i in zip(split.rows, split.prompt, strict=True)]
    perturbed = [loss[row] for row in split.perturbed]
    return SplitScores(loss[split.answer], loss[split.paraphrase], perturbed, np.array(rouge))


def _own_columns(split: Split, scores: LikelihoodScores) -> dict[str, Any]:
    """Columns of every row: its texts, the log-probabilities of its answer's tokens and end, and memorisation."""
    answers = [row.answer for row in split.rows]
    correct = [scores.correct[i][:-1] for i in split.answer]  # without the end of sequence
    return {
        "question": [row.question for row in split.rows],
        "answer": answers,
        "logp": [scores.logp[i] for i in split.answer],
        **signals(scores, split.answer, answers),
        "extraction_strength": metrics.extraction_strength(correct),
        "exact_memorization": metrics.exact_memorization(correct),
    }


def _answer_columns(split: Split, scores: SplitScores, answers: Sequence[str]) -> dict[str, Any]:
    """Columns of rows that have a prompt: the generated answer, and the losses of the benchmark's other answers."""
    return {
        "generated": [answers[i] for i in split.prompt],
        "rouge": scores.rouge,
        "paraphrase_loss": scores.paraphrase,
        "perturbed_loss": scores.perturbed,
        "truth_ratio": scores.truth_ratio,
    }
