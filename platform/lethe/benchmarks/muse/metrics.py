"""MUSE's metrics from means over rows: docs/METHODS.md section 5b; Shi et al. 2024, arXiv 2407.06460."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lethe.benchmarks.base import ReferenceValues
from lethe.errors import UserError
from lethe.evaluation.membership import privleak


@dataclass(frozen=True)
class MuseScores(ReferenceValues):
    """Scores of one model on the documents to forget: mean ROUGE of VerbMem and KnowMem, AUC of Min-K.

    `digest` names the evaluated rows. `knowmem` is None without questions, `mia_min_k` without holdout texts.
    """

    digest: str
    verbmem: float
    knowmem: float | None
    mia_min_k: float | None

    def dump(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return asdict(self)

    @classmethod
    def load(cls, stored: Any) -> Self:
        """Read the values that `dump` gave. Raises UserError for those of another version of lethe."""
        if not isinstance(stored, dict) or stored.keys() != {field.name for field in fields(cls)}:
            raise UserError("the oracle's stored scores are of another version of lethe: start the study anew")
        return cls(**stored)

    def check(self, digest: str) -> None:
        """Raise UserError unless these are scores of the rows with this `digest`."""
        if self.digest != digest:
            raise UserError("the oracle was scored on other rows than here: score it again, on this benchmark")


NOTHING_KNOWN = MuseScores("", verbmem=0.0, knowmem=0.0, mia_min_k=0.5)


def forget_distance(model: MuseScores, oracle: MuseScores = NOTHING_KNOWN) -> float:
    """Return the mean distance of VerbMem, KnowMem and AUC to the oracle's, of those that the model has, in [0, 1]."""
    pairs = [(getattr(model, name), getattr(oracle, name)) for name in ("verbmem", "knowmem", "mia_min_k")]
    gaps: list[float] = [abs(own - other) for own, other in pairs if own is not None and other is not None]
    return sum(gaps) / len(gaps)


def reference_metrics(model: MuseScores, oracle: MuseScores) -> dict[str, float]:
    """Return the metrics that compare a model with its oracle on the same rows, all finite."""
    values = {"forget": forget_distance(model, oracle)}
    if model.mia_min_k is None or oracle.mia_min_k is None:
        return values
    return {**values, **privleak(model.mia_min_k, oracle.mia_min_k)}
