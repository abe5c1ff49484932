"""TOFU's metrics from per-row losses and ROUGE: METHODS section 4; Maini et al. 2024, arXiv 2401.06121.

The columns of SOUL's tables (Jia et al. 2024, arXiv 2404.18239) under names of their own.

They differ from TOFU's metrics: forget quality compares the forget with the retain rows of the *same* model, so that
a destroyed model scores 1; the truth ratio has an arithmetic mean. Membership labels are the right way round here,
forget rows as members: the released code misaligns them. Its accuracy needs a sentence embedding; on rows with
perturbed answers ours is the choice by length-normalised probability among the same candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lethe.benchmarks.tofu.eval_set import Split, TofuEvalSet
from lethe.evaluation import metrics
from lethe.evaluation.likelihood import LikelihoodScores
from lethe.evaluation.membership import min_k
from lethe.evaluation.metrics import auc, ks_test

OPTIONS = ("real_authors", "world_facts")  # probability is the answer's share of its options
UTILITY = ("retain", *OPTIONS)


@dataclass(frozen=True)
class SplitScores:
    """One split's rows: mean token losses (nats) and ROUGE-L recall [n]; `perturbed`: one array per row.

    A row without a paraphrase has its answer's loss there.
    """

    answer: np.ndarray
    paraphrase: np.ndarray
    perturbed: Sequence[np.ndarray]
    rouge: np.ndarray

    def probability(self, options: bool) -> np.ndarray:
        """Of the answer [n], alone or among its options."""
        if options:
            return metrics.option_probability(self.answer, self.perturbed)
        return metrics.probability(self.answer)

    @cached_property
    def truth_ratio(self) -> np.ndarray:
        """R [n]."""
        return metrics.truth_ratio(self.paraphrase, self.perturbed)


def split_metrics(name: str, scores: SplitScores) -> dict[str, float]:
    """Mean probability, ROUGE and truth-ratio score of one split, as `NAME_probability` and so on."""
    score = metrics.forget_truth_score if name == "forget" else metrics.truth_score
    return {
        f"{name}_probability": float(scores.probability(name in OPTIONS).mean()),
        f"{name}_rouge": float(np.mean(scores.rouge)),
        f"{name}_truth_ratio": float(score(scores.truth_ratio).mean()),
    }


def model_utility(values: dict[str, float]) -> float:
    """Harmonic mean of probability, ROUGE and truth ratio over all splits off the forget set that `values` has."""
    kinds = ("probability", "rouge", "truth_ratio")
    names = [f"{split}_{kind}" for split in UTILITY for kind in kinds]
    return metrics.harmonic_mean(values[name] for name in names if name in values)


def forget_quality(ratio: np.ndarray, oracle_ratio: np.ndarray) -> dict[str, float]:
    """Truth ratios of forget rows against the oracle's: the KS distance as `forget`, p and log10 p."""
    test = ks_test(ratio, oracle_ratio)
    return {
        "forget": test.statistic,
        "forget_quality": test.p,
        "forget_quality_log10": test.log10_p,
    }


CHOICE, OCCURS = ("forget", "retain"), ("real_authors", "world_facts")


def soul_metrics(
    eval_set: TofuEvalSet, scores: LikelihoodScores, loss: np.ndarray, answers: Sequence[str]
) -> dict[str, float]:
    """`loss` [pairs]: finite or infinite mean token losses; `answers`: what was generated to each prompt."""
    splits = eval_set.splits
    quality = ks_test(*(_truth_ratio(splits[name], loss) for name in CHOICE))
    values = {"soul_forget_quality": 1.0 - quality.p}
    values |= {f"soul_{name}_accuracy": _choice(splits[name], loss) for name in CHOICE}
    values |= {f"soul_{name}_accuracy": _occurs(splits[name], answers) for name in OCCURS if name in splits}
    if eval_set.holdout.rows:
        members, others = (min_k([scores.logp[i] for i in s.answer]) for s in (splits["forget"], eval_set.holdout))
        values["soul_mia"] = auc(members, others)
    return values


def _truth_ratio(split: Split, loss: np.ndarray) -> np.ndarray:
    """mean_j exp(-b_j) / exp(-c) [n]: wrong answers' probability over the paraphrase's; infinite where both are 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        ratios = [np.exp(loss[c] - loss[b]).mean() for c, b in zip(split.paraphrase, split.perturbed, strict=True)]
    finite: np.ndarray = np.nan_to_num(np.array(ratios), nan=np.inf, posinf=np.inf)
    return finite


def _choice(split: Split, loss: np.ndarray) -> float:
    pairs = zip(split.answer, split.perturbed, strict=True)
    return float(np.mean([loss[right] < loss[wrong].min() for right, wrong in pairs]))


def _occurs(split: Split, answers: Sequence[str]) -> float:
    said = [answers[i].casefold() for i in split.prompt]
    return float(np.mean([row.answer.casefold() in text for row, text in zip(split.rows, said, strict=True)]))
