"""Metrics that compare a model with its oracle: forget quality, reference membership, privacy leakage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from lethe.benchmarks.base import ReferenceValues
from lethe.benchmarks.tofu.metrics import forget_quality
from lethe.errors import UserError
from lethe.evaluation.membership import membership_metrics
from lethe.evaluation.metrics import losses

TINY = 1e-10  # added to a divisor that is 0 for an oracle with AUC 1


@dataclass(frozen=True)
class ReferenceScores(ReferenceValues):
    """LikelihoodScores of one model that others can be compared with; a study keeps its oracle's.

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
    """Return the metrics that compare a model with its oracle on the same rows, all finite.

    privleak = 100 ((1 - AUC) - (1 - AUC*)) / (1 - AUC*) of Min-K (Shi et al. 2024, arXiv 2407.06460): 0 like the
    oracle, below it where forget rows are still remembered, above it where they stand out as forgotten.
    """
    values = forget_quality(model.forget_truth_ratio, oracle.forget_truth_ratio)
    if model.mia_min_k is None or oracle.mia_min_k is None:
        return values
    values |= membership_metrics(
        {"reference": reference(model.forget_loss, oracle.forget_loss)},
        {"reference": reference(model.holdout_loss, oracle.holdout_loss)},
    )
    leak = 100 * (oracle.mia_min_k - model.mia_min_k) / (1 - oracle.mia_min_k + TINY)
    return {**values, "privleak": leak, "privleak_distance": abs(leak)}


def reference(loss: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """Return `loss` less the `oracle`'s [n]; infinite where neither is a number."""
    with np.errstate(invalid="ignore"):
        return losses(loss - oracle)
