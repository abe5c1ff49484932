"""One evaluation of a model: shared forward passes, then metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from types import MappingProxyType
from typing import Any

import numpy as np
from lethe.benchmarks.tofu.eval_set import EvalSet, Split, build_eval_set
from lethe.benchmarks.tofu.metrics import SplitScores, model_utility, soul_metrics, split_metrics
from lethe.benchmarks.tofu.reference import ReferenceScores, reference, reference_metrics
from lethe.config.run import Evaluation
from lethe.evaluation import metrics
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import Gather, RankShard, evaluating
from lethe.evaluation.generation import generate, known_beginning
from lethe.evaluation.likelihood import LikelihoodScores, score
from lethe.evaluation.membership import gradient_norms, membership_metrics, signals
from lethe.evaluation.metrics import rouge_l_recall
from lethe.evaluation.rows import Columns, stack_splits
from torch import nn

__all__ = ["EvalSet", "Result", "build_eval_set", "evaluate"]

SIGNALS = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm")  # columns; their metrics are mia_<signal>


@dataclass(frozen=True)
class Result:
    """What one evaluation found; every metric is finite, a loss that is not a number counts as infinite.

    `metrics`: flat floats. `truth`: what others are compared with, if this model is an oracle. `rows`: columns of
    values of every evaluated row, one below the other, as in a run's
    parquet file.
    """

    metrics: dict[str, float]
    truth: ReferenceScores
    rows: Columns = field(default_factory=dict)
    forgotten: None = field(default=None, init=False)  # this benchmark has no criterion to stop by

    @property
    def finite(self) -> bool:
        """Whether the model's likelihoods were numbers."""
        return not np.isnan(self.truth.forget_truth_ratio).any()


def evaluate(
    model: nn.Module,
    eval_set: EvalSet,
    config: Evaluation,
    oracle: ReferenceScores | None,
    *,
    rank: int = 0,
    world: int = 1,
    gather: Gather | None = None,
) -> Result:
    """Score and question `model`, in its own dtype and on its own device; its modes and weights are left as found.

    Over several ranks that hold the whole model each does its share, and `gather` turns a rank's list into the
    list of all ranks' lists; the result is the same on every rank. Where a forward pass is a collective
    (ZeRO-3), give every rank the whole work instead: world 1. Raises BadInput for rows that the model cannot read
    and for an oracle of other rows.
    """
    check_context_length(eval_set.named_rows(), ContextLimits.of(model))
    if oracle is not None:
        oracle.check(eval_set.digest, len(eval_set.splits["forget"].rows))
    template, shard, budget, own = eval_set.template, RankShard(rank, world, gather), config.token_budget, eval_set.own

    def scored(questions: Sequence[Sequence[int]]) -> list[list[tuple[np.ndarray, ...]]]:
        places = [i for question in questions for i in question]
        pairs = [eval_set.pairs[i] for i in places]
        scores = score(model, pairs, pad=template.pad, token_budget=budget, standardised=own[places])
        found = zip(scores.logp, scores.correct, scores.guess, scores.standard, strict=True)
        return [list(islice(found, len(question))) for question in questions]

    def answered(asked: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[int]]:
        most = {"max_new_tokens": config.max_new_tokens, "token_budget": budget}
        prompts, begun = ([pair[k] for pair in asked] for k in (0, 1))
        return generate(model, prompts, eos=template.eos, pad=template.pad, **most, begun=begun)

    members = {"forget": eval_set.splits["forget"], "holdout": eval_set.holdout} if config.gradnorm else {}
    norms = {}
    with evaluating(model):
        found = chain.from_iterable(shard.map(eval_set.questions(), scored))
        scores = LikelihoodScores(*map(list, zip(*found, strict=True)))
        begun = [known_beginning(eval_set.pairs[i].answer, scores.guess[i]) for i in eval_set.prompted()]
        answers = shard.map(list(zip(eval_set.prompts, begun, strict=True)), answered)
        for name, split in members.items():
            pairs = [eval_set.pairs[i] for i in split.answer]
            norms[name] = np.array(shard.map(pairs, lambda some: gradient_norms(model, some)))
    return measure(eval_set, scores, [template.decode(answer) for answer in answers], oracle, norms)


def measure(
    eval_set: EvalSet,
    scores: LikelihoodScores,
    answers: Sequence[str],
    oracle: ReferenceScores | None,
    gradnorm: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Result:
    """Every metric, from all pairs' scores, all prompts' answers and, if wanted, members' and others' gradients."""
    loss = metrics.losses(scores.nll_mean)
    parts = {name: _own_columns(split, scores) for name, split in eval_set.all_splits().items()}
    for name in parts.keys() & gradnorm.keys():
        parts[name]["gradnorm"] = metrics.losses(gradnorm[name])
    values: dict[str, float] = {}
    for name, split in eval_set.splits.items():
        found = _split_scores(split, loss, answers)
        values |= split_metrics(name, found)
        parts[name] |= _answer_columns(split, found, answers)
    values["utility"] = model_utility(values)
    for name in ("extraction_strength", "exact_memorization"):
        values[f"forget_{name}"] = float(parts["forget"][name].mean())
    values["forget"] = values["forget_extraction_strength"]
    forget, holdout = parts["forget"], parts.get("holdout")
    if holdout:
        values |= membership_metrics(
            *({name: part[name] for name in SIGNALS if name in part} for part in (forget, holdout))
        )
    values |= soul_metrics(eval_set, scores, loss, answers)
    truth = ReferenceScores(
        digest=eval_set.digest,
        forget_truth_ratio=forget["truth_ratio"],
        forget_loss=forget["loss"],
        holdout_loss=holdout["loss"] if holdout else np.empty(0),
        mia_min_k=values.get("mia_min_k"),
    )
    if oracle is not None:
        values |= reference_metrics(truth, oracle)
        forget["reference"] = reference(truth.forget_loss, oracle.forget_loss)
        if holdout:
            holdout["reference"] = reference(truth.holdout_loss, oracle.holdout_loss)
    return Result(values, truth, stack_splits(parts))


def _split_scores(split: Split, loss: np.ndarray, answers: Sequence[str]) -> SplitScores:
    rouge = [rouge_l_recall(row.answer, answers[i]) for row, i in zip(split.rows, split.prompt, strict=True)]
    perturbed = [loss[row] for row in split.perturbed]
    return SplitScores(loss[split.answer], loss[split.paraphrase], perturbed, np.array(rouge))


def _own_columns(split: Split, scores: LikelihoodScores) -> dict[str, Any]:
    """Of every row: its texts, the log-probabilities of its answer's tokens and end, and what they say of memory."""
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
    """Of rows that are asked: the answer that was generated, and the losses of the benchmark's other answers."""
    return {
        "generated": [answers[i] for i in split.prompt],
        "rouge": scores.rouge,
        "paraphrase_loss": scores.paraphrase,
        "perturbed_loss": scores.perturbed,
        "truth_ratio": scores.truth_ratio,
    }
