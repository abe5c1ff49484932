"""One evaluation of a model: shared forward passes, then metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from lethe.config.evaluation import Evaluation
from lethe.data.template import Encoded
from lethe.evaluation import metrics
from lethe.evaluation.eval_set import EvalSet, Split, build_eval_set
from lethe.evaluation.generation import generate
from lethe.evaluation.rouge import rouge_l_recall
from lethe.evaluation.scoring import Scores, score
from lethe.evaluation.sharing import Gather, Share, evaluating
from lethe.evaluation.soul import soul_metrics
from lethe.evaluation.tofu import SplitScores, forget_quality, model_utility, split_metrics

__all__ = ["EvalSet", "Result", "Truth", "build_eval_set", "evaluate"]

KEPT = {"retain": 10, "world_facts": 10}  # rows off the forget set whose answers a result keeps, for the report


@dataclass(frozen=True)
class Result:
    """What one evaluation found; every metric is finite, a loss that is not a number counts as infinite.

    `metrics`: flat floats. `forget_truth_ratio` [n]: R of each forget row, of which an oracle's `Truth` is made.
    `rows`: one list per name, of JSON values (None for a number that is not finite): each forget row, and the
    first retain and world-facts rows.
    """

    metrics: dict[str, float]
    forget_truth_ratio: np.ndarray
    rows: dict[str, list] = field(default_factory=dict)
    forgotten: None = field(default=None, init=False)  # this benchmark has no criterion to stop by

    @property
    def finite(self) -> bool:
        """Whether the model's likelihoods were numbers."""
        return not np.isnan(self.forget_truth_ratio).any()


@dataclass(frozen=True)
class Truth:
    """What a study keeps of its oracle: R [n] on the forget rows, under the same `Evaluation`."""

    forget_truth_ratio: np.ndarray


def evaluate(
    model: nn.Module,
    eval_set: EvalSet,
    config: Evaluation,
    oracle: Truth | None,
    *,
    rank: int = 0,
    world: int = 1,
    gather: Gather | None = None,
) -> Result:
    """Score and question `model`, in its own dtype and on its own device; its modes and weights are left as found.

    Over several ranks that hold the whole model each does its share, and `gather` turns a rank's list into the
    list of all ranks' lists; the result is the same on every rank. Where a forward pass is a collective
    (ZeRO-3), give every rank the whole work instead: world 1.
    """
    template, share, budget = eval_set.template, Share(rank, world, gather), config.token_budget

    def scored(pairs: Sequence[Encoded]) -> list[tuple[np.ndarray, np.ndarray]]:
        scores = score(model, pairs, pad=template.pad, token_budget=budget)
        return list(zip(scores.logp, scores.correct, strict=True))

    def answered(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        most = config.max_new_tokens
        return generate(model, prompts, eos=template.eos, pad=template.pad, max_new_tokens=most, token_budget=budget)

    with evaluating(model):
        logp, correct = map(list, zip(*share.of(eval_set.pairs, scored), strict=True))
        answers = share.of(eval_set.prompts, answered)
    scores = Scores(logp, correct)
    return measure(eval_set, scores, [template.decode(answer) for answer in answers], oracle)


def measure(eval_set: EvalSet, scores: Scores, answers: Sequence[str], oracle: Truth | None) -> Result:
    """Every metric, from all pairs' scores and all prompts' answers."""
    loss = metrics.losses(scores.nll_mean)
    splits = {name: _split_scores(split, loss, answers) for name, split in eval_set.splits.items()}
    values: dict[str, float] = {}
    for name, split in splits.items():
        values |= split_metrics(name, split)
    forget = eval_set.splits["forget"]
    correct = [scores.correct[i][:-1] for i in forget.answer]  # without the end of sequence
    strength, ratio = metrics.extraction_strength(correct), splits["forget"].truth_ratio()
    values["utility"] = model_utility(values)
    values["forget_extraction_strength"] = float(strength.mean())
    values["forget_exact_memorization"] = float(metrics.exact_memorization(correct).mean())
    values |= {"forget": float(strength.mean())} if oracle is None else forget_quality(ratio, oracle.forget_truth_ratio)
    if eval_set.holdout.size:
        values["mia_loss"] = metrics.auc(-loss[forget.answer], -loss[eval_set.holdout])
    values |= soul_metrics(eval_set, scores, loss, answers)
    rows = _row_values("forget", forget, splits["forget"], answers, len(forget.rows))
    rows["forget_extraction_strength"] = _json(strength)
    for name, keep in KEPT.items():
        if name in splits:
            rows |= _row_values(name, eval_set.splits[name], splits[name], answers, keep)
    return Result(values, ratio, rows)


def _split_scores(split: Split, loss: np.ndarray, answers: Sequence[str]) -> SplitScores:
    rouge = [rouge_l_recall(row.answer, answers[i]) for row, i in zip(split.rows, split.prompt, strict=True)]
    perturbed = [loss[row] for row in split.perturbed]
    return SplitScores(loss[split.answer], loss[split.paraphrase], perturbed, np.array(rouge))


def _row_values(name: str, split: Split, scores: SplitScores, answers: Sequence[str], keep: int) -> dict[str, list]:
    return {
        f"{name}_question": [row.question for row in split.rows[:keep]],
        f"{name}_answer": [row.answer for row in split.rows[:keep]],
        f"{name}_generated": [answers[i] for i in split.prompt[:keep]],
        f"{name}_probability": _json(scores.probability(options=False)[:keep]),
        f"{name}_rouge": _json(scores.rouge[:keep]),
        f"{name}_truth_ratio": _json(scores.truth_ratio()[:keep]),
    }


def _json(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
