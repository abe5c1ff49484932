"""The columns of SOUL's tables (Jia et al. 2024, arXiv 2404.18239) under names of their own.

They differ from TOFU's metrics: forget quality compares the forget with the retain rows of the *same* model, so that
a destroyed model scores 1; the truth ratio has an arithmetic mean. Membership labels are the right way round here,
forget rows as members: the released code misaligns them. Its accuracy needs a sentence embedding; on rows with
perturbed answers ours is the choice by length-normalised probability among the same candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lethe.evaluation.eval_set import EvalSet, Split
from lethe.evaluation.ks import ks
from lethe.evaluation.membership import min_k
from lethe.evaluation.metrics import auc
from lethe.evaluation.scoring import Scores

CHOICE, OCCURS = ("forget", "retain"), ("real_authors", "world_facts")


def soul_metrics(eval_set: EvalSet, scores: Scores, loss: np.ndarray, answers: Sequence[str]) -> dict[str, float]:
    """`loss` [pairs]: finite or infinite mean token losses; `answers`: what was generated to each prompt."""
    splits = eval_set.splits
    quality = ks(*(_truth_ratio(splits[name], loss) for name in CHOICE))
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
    return np.nan_to_num(np.array(ratios), nan=np.inf, posinf=np.inf)


def _choice(split: Split, loss: np.ndarray) -> float:
    pairs = zip(split.answer, split.perturbed, strict=True)
    return float(np.mean([loss[right] < loss[wrong].min() for right, wrong in pairs]))


def _occurs(split: Split, answers: Sequence[str]) -> float:
    said = [answers[i].casefold() for i in split.prompt]
    return float(np.mean([row.answer.casefold() in text for row, text in zip(split.rows, said, strict=True)]))
