"""What only a model that never saw the forget rows can tell: forget quality, reference membership, privacy leakage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from lethe.benchmarks.tofu.metrics import forget_quality
from lethe.errors import UserError
from lethe.evaluation.membership import membership_metrics
from lethe.evaluation.metrics import losses

TINY = 1e-10  # in a divisor that an oracle may make 0


@dataclass(frozen=True)
class ReferenceScores:
    """What of one model another is compared with; a study keeps its oracle's.

    `digest` names the evaluated rows; `forget_truth_ratio`, `forget_loss` [n] and `holdout_loss` [m] belong to them
    in order; `mia_min_k` is an AUC, None without holdout rows.
    """

    digest: str
    forget_truth_ratio: np.ndarray
    forget_loss: np.ndarray
    holdout_loss: np.ndarray
    mia_min_k: float | None

    def dump(self) -> dict[str, Any]:
        """As JSON, in which Python has infinities."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}

    @classmethod
    def load(cls, stored: Any) -> Self:
        """From `dump`. Raises BadInput for what another version of lethe left."""
        if not isinstance(stored, dict) or stored.keys() != {field.name for field in fields(cls)}:
            raise UserError("the oracle's stored scores are of another version of lethe: start the study anew")
        return cls(**{k: np.array(v, dtype=np.float64) if isinstance(v, list) else v for k, v in stored.items()})

    @property
    def finite(self) -> bool:
        """Whether the model may be an oracle."""
        return bool(np.isfinite(self.forget_truth_ratio).all())

    def check(self, digest: str, rows: int) -> None:
        """Raises BadInput unless these are the rows that an evaluation has: others have no distance to them."""
        if self.digest == digest:
            return
        scored = len(self.forget_truth_ratio)
        how = f"{scored} forget rows, here are {rows}" if scored != rows else "other forget or holdout rows than here"
        raise UserError(
            f"forget quality: the oracle was scored on {how}: score it again, on this benchmark and max_rows"
        )


def reference_metrics(model: ReferenceScores, oracle: ReferenceScores) -> dict[str, float]:
    """The metrics that compare a model with its oracle on the same rows, all finite.

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
    """Loss - the oracle's [n]; infinite where neither is a number."""
    with np.errstate(invalid="ignore"):
        return losses(loss - oracle)
