"""TOFU's metrics from per-row losses and ROUGE, some against an oracle's: docs/METHODS.md section 4.

Source: Maini et al. 2024, arXiv 2401.06121.

To add a metric, put its name into `TOFU_METRICS` of `lethe.config.metrics` and its function here, decorated with
`metric_group`.

The metrics `soul_*` are the columns of SOUL's tables (Jia et al. 2024, arXiv 2404.18239). They differ from TOFU's:
forget quality compares the forget with the retain rows of the *same* model, so that a destroyed model scores 1; the
truth ratio has an arithmetic mean. Forget rows are the members of its membership attack: the released code misaligns
the labels. Its accuracy needs a sentence embedding; on rows with perturbed answers it is here the choice by
length-normalised probability among the same candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from lethe.benchmarks.base import ReferenceValues
from lethe.benchmarks.tofu.eval_set import Split, TofuEvalSet
from lethe.data.words import folded
from lethe.errors import UserError
from lethe.evaluation import metrics
from lethe.evaluation.likelihood import LikelihoodScores
from lethe.evaluation.membership import membership_metrics, min_k, privleak
from lethe.evaluation.metrics import auc, ks_test, loss_difference

OPTIONS = ("real_authors", "world_facts")  # probability is the answer's share of its options
UTILITY = ("retain", *OPTIONS)


@dataclass(frozen=True)
class SplitScores:
    """Mean token losses (nats) and ROUGE-L recall [n] of one split's rows.

    `paraphrase` is the answer's loss for a row without a paraphrase; `perturbed` has an array per row.
    """

    answer: np.ndarray
    paraphrase: np.ndarray
    perturbed: Sequence[np.ndarray]
    rouge: np.ndarray

    def probability(self, options: bool) -> np.ndarray:
        """Return the probability of each answer [n]; with `options` its share among itself and the perturbed ones."""
        if options:
            return metrics.option_probability(self.answer, self.perturbed)
        return metrics.probability(self.answer)

    @cached_property
    def truth_ratio(self) -> np.ndarray:
        """Truth ratio R [n]."""
        return metrics.truth_ratio(self.paraphrase, self.perturbed)


def split_metrics(name: str, scores: SplitScores) -> dict[str, float]:
    """Return mean probability, ROUGE and truth-ratio score of one split, as `NAME_probability` and so on."""
    score = metrics.forget_truth_score if name == "forget" else metrics.truth_score
    return {
        f"{name}_probability": float(scores.probability(name in OPTIONS).mean()),
        f"{name}_rouge": float(np.mean(scores.rouge)),
        f"{name}_truth_ratio": float(score(scores.truth_ratio).mean()),
    }


def model_utility(values: dict[str, float]) -> float:
    """Return the harmonic mean of probability, ROUGE and truth ratio over all splits in `values` but the forget set."""
    kinds = ("probability", "rouge", "truth_ratio")
    names = [f"{split}_{kind}" for split in UTILITY for kind in kinds]
    return metrics.harmonic_mean(values[name] for name in names if name in values)


def forget_quality(ratio: np.ndarray, oracle_ratio: np.ndarray) -> dict[str, float]:
    """Compare truth ratios of forget rows with the oracle's: KS distance as `forget`, p and log10 p of the test."""
    test = ks_test(ratio, oracle_ratio)
    return {
        "forget": test.statistic,
        "forget_quality": test.p,
        "forget_quality_log10": test.log10_p,
    }


# Compared with an oracle


@dataclass(frozen=True)
class ReferenceScores(ReferenceValues):
    """Scores of one model that others can be compared with; a study keeps its oracle's.

    `digest` names the evaluated rows; `forget_truth_ratio`, `forget_loss` [n] and `holdout_loss` [m] belong to them
    in order; `mia_min_k` is an AUC, None without holdout rows.
    """

    digest: str
    forget_truth_ratio: np.ndarray
    forget_loss: np.ndarray
    holdout_loss: np.ndarray
    mia_min_k: float | None

    def dump(self) -> dict[str, Any]:
        """Return the scores as JSON with Python's infinities."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}

    @classmethod
    def load(cls, stored: Any) -> Self:
        """Read the scores that `dump` gave. Raises UserError for those of another version of lethe."""
        if not isinstance(stored, dict) or stored.keys() != {field.name for field in fields(cls)}:
            raise UserError("the oracle's stored scores are of another version of lethe: start the study anew")
        values: dict[str, Any] = {
            key: np.array(value, dtype=np.float64) if isinstance(value, list) else value
            for key, value in stored.items()
        }
        return cls(**values)

    @property
    def finite(self) -> bool:
        """True if every truth ratio is a number: otherwise the model is no oracle."""
        return bool(np.isfinite(self.forget_truth_ratio).all())

    def check(self, digest: str, rows: int) -> None:
        """Raise UserError unless these are scores of the evaluated rows, whose digest is `digest` and of which `rows`
        are forget rows."""
        if self.digest == digest:
            return
        scored = len(self.forget_truth_ratio)
        how = f"{scored} forget rows, here are {rows}" if scored != rows else "other forget or holdout rows than here"
        raise UserError(
            f"forget quality: the oracle was scored on {how}: score it again, on this benchmark and max_rows"
        )


def reference_metrics(model: ReferenceScores, oracle: ReferenceScores) -> dict[str, float]:
    """Return the metrics that compare a model with its oracle on the same rows, all finite."""
    values = forget_quality(model.forget_truth_ratio, oracle.forget_truth_ratio)
    if model.mia_min_k is None or oracle.mia_min_k is None:
        return values
    values |= membership_metrics(
        {"reference": loss_difference(model.forget_loss, oracle.forget_loss)},
        {"reference": loss_difference(model.holdout_loss, oracle.holdout_loss)},
    )
    return {**values, **privleak(model.mia_min_k, oracle.mia_min_k)}


# Computed in every evaluation


@dataclass(frozen=True)
class Evaluated:
    """Everything that one evaluation measured, for metrics to be computed from.

    `scores`: of all pairs of `eval_set`; `loss` [pairs]: their mean token losses in nats, infinite where they are not
    numbers; `answers`: to all prompts of `eval_set`; `columns`: by split and name, a value for each row.
    """

    eval_set: TofuEvalSet
    scores: LikelihoodScores
    loss: np.ndarray
    answers: Sequence[str]
    columns: Mapping[str, Mapping[str, Any]]


MetricGroup = Callable[[Evaluated], dict[str, float]]
METRIC_GROUPS: list[MetricGroup] = []


def metric_group(compute: MetricGroup) -> MetricGroup:
    """Decorate a function that computes one or several metrics by name; every evaluation calls it. A metric that these
    data do not allow is left out."""
    METRIC_GROUPS.append(compute)
    return compute


@metric_group
def memorisation_metrics(evaluated: Evaluated) -> dict[str, float]:
    """Return how much of the forget answers the model gives, and `forget` of a study without an oracle."""
    forget = evaluated.columns["forget"]
    strength = float(forget["extraction_strength"].mean())
    return {
        "forget_extraction_strength": strength,
        "forget_exact_memorization": float(forget["exact_memorization"].mean()),
        "forget": strength,
    }


SIGNALS = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm")  # columns; their metrics are mia_<signal>


@metric_group
def membership(evaluated: Evaluated) -> dict[str, float]:
    """Return `mia_<signal>` of every signal that was measured; nothing without holdout rows."""
    forget, holdout = evaluated.columns["forget"], evaluated.columns.get("holdout")
    if not holdout:
        return {}
    return membership_metrics(*({name: part[name] for name in SIGNALS if name in part} for part in (forget, holdout)))


@metric_group
def soul(evaluated: Evaluated) -> dict[str, float]:
    """Return the columns of SOUL's tables."""
    return soul_metrics(evaluated.eval_set, evaluated.scores, evaluated.loss, evaluated.answers)


CHOICE, OCCURS = ("forget", "retain"), ("real_authors", "world_facts")  # splits by SOUL's kind of accuracy


def soul_metrics(
    eval_set: TofuEvalSet, scores: LikelihoodScores, loss: np.ndarray, answers: Sequence[str]
) -> dict[str, float]:
    """Return SOUL's metrics. `loss` [pairs]: mean token losses, finite or infinite; `answers`: the generated answer to
    each prompt."""
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
    """Return mean_j exp(-b_j) / exp(-c) [n], wrong answers' probability over the paraphrase's; infinite where both are
    0."""
    with np.errstate(over="ignore", invalid="ignore"):
        ratios = [np.exp(loss[c] - loss[b]).mean() for c, b in zip(split.paraphrase, split.perturbed, strict=True)]
    ratio: np.ndarray = np.nan_to_num(np.array(ratios), nan=np.inf, posinf=np.inf)
    return ratio


def _choice(split: Split, loss: np.ndarray) -> float:
    """Return the share of rows whose answer is likelier than every perturbed one."""
    pairs = zip(split.answer, split.perturbed, strict=True)
    return float(np.mean([loss[right] < loss[wrong].min() for right, wrong in pairs]))


def _occurs(split: Split, answers: Sequence[str]) -> float:
    """Return the share of rows whose generated answer contains the true one, whatever the case and the Unicode form."""
    generated = [folded(answers[i]) for i in split.prompt]
    return float(np.mean([folded(row.answer) in text for row, text in zip(split.rows, generated, strict=True)]))
