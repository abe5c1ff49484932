"""The metrics of one's own rows from values per row: docs/METHODS.md section 5b.

    forget  = D of a two-sample KS test of forget against holdout rows' losses, each less that of a model that saw
              neither (oracle, else base) where there is one; without a holdout D of forget rows' losses against the
              oracle's; without both `forget_found`, the mean over forget rows of what finds most of each
    utility = harmonic mean of retain probability, retain ROUGE, min(1, start perplexity / perplexity) on general text,
              and tasks of lm-evaluation-harness: those that there are

Two samples show what a mean hides: rows that are still known beside rows that are pushed far below what an unseen row
has. What a model that saw no row finds hard is hard for others, too: less its loss (Carlini et al. 2021, arXiv
2012.07805), rows are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import ConfigDict, ValidationError

from lethe.benchmarks.base import ReferenceValues
from lethe.config.base import Frozen
from lethe.config.benchmark import Role
from lethe.errors import UserError
from lethe.evaluation.membership import membership_metrics
from lethe.evaluation.metrics import harmonic_mean, ks_test, loss_difference, perplexity

STANDARD_ERRORS = 1.96  # 95 % of what chance gives
ATTACKS = ("mia_loss", "mia_min_k", "mia_reference")  # the attacks that `mia_excess` looks at


class Measured(Frozen, ReferenceValues):
    """Values of one model that need no other model.

    `data`: names data and rows, as `OwnEvalSet.digest`; `forget` [n], `holdout` [m]: mean token losses of the evaluated
    rows, in order; `attacks`: the AUCs that these give alone; `found`: `forget_found`; `kept`: the parts of `utility`
    but the perplexity; `general`: the mean token loss on general text, None without.
    """

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    data: str
    forget: tuple[float, ...]
    holdout: tuple[float, ...]
    attacks: dict[str, float]
    found: float
    kept: dict[str, float]
    general: float | None

    def dump(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return self.model_dump(mode="json")

    @classmethod
    def load(cls, stored: Any) -> Self:
        """Read what `dump` gave. Raises UserError for what another version of lethe dumped."""
        try:
            return cls.model_validate(stored)
        except ValidationError:
            raise UserError("stored scores are of another version of lethe: start the study anew") from None


@dataclass(frozen=True)
class References(ReferenceValues):
    """Values of a study's models, by role: start model, oracle, base."""

    models: Mapping[Role, Measured]

    def dump(self) -> dict[str, Any]:
        """Return the values as JSON."""
        return {role: model.dump() for role, model in self.models.items()}

    @classmethod
    def load(cls, stored: Mapping[Role, Any], digest: str) -> Self:
        """Read what `dump` gave. Raises UserError for a model that was measured on other rows than `digest` names."""
        models: dict[Role, Measured] = {role: Measured.load(values) for role, values in stored.items()}
        for role, model in models.items():
            if model.data != digest:
                raise UserError(f"the {role} model was scored on other rows: score it again, on these and max_rows")
        return cls(models)


def compared(own: Measured, references: References | None) -> dict[str, float]:
    """Return the metrics that a model has beside others, from values of the same rows; those without a reference that
    they need are left out. All are finite."""
    models = references.models if references else {}
    start, oracle, base = (models.get(role) for role in ("start", "oracle", "base"))
    values = {"forget": own.found, "utility": harmonic_mean([*own.kept.values(), *_relative_perplexity(own, start)])}
    if oracle is not None:
        test = ks_test(np.array(own.forget), np.array(oracle.forget))
        values |= {"forget": test.statistic, "oracle_distance": test.statistic, "oracle_quality": test.p}
    if own.holdout:
        values |= against_holdout(own, oracle or base)
    return values


def _relative_perplexity(own: Measured, start: Measured | None) -> list[float]:
    """Return min(1, start perplexity / perplexity); nothing where one of them is unknown."""
    if own.general is None or start is None or start.general is None:
        return []
    return [min(1.0, perplexity(start.general) / perplexity(own.general))]


def against_holdout(own: Measured, unaware: Measured | None) -> dict[str, float]:
    """Return the metrics that compare forget with holdout rows. With a model `unaware` of both, losses are less its
    own, and attacks must be as blind as on it; without one, as blind as a coin."""
    forget, holdout = np.array(own.forget), np.array(own.holdout)
    blind, calibrated = dict.fromkeys(ATTACKS, 0.5), {}
    if unaware is not None:
        forget = loss_difference(forget, np.array(unaware.forget))
        holdout = loss_difference(holdout, np.array(unaware.holdout))
        calibrated = membership_metrics({"reference": forget}, {"reference": holdout})
        blind |= {name: value for name, value in unaware.attacks.items() if name in ATTACKS}
    attacks = {**own.attacks, **calibrated}
    farthest = max(abs(attacks[name] - blind[name]) for name in ATTACKS if name in attacks)
    test = ks_test(forget, holdout)
    return {
        "forget": test.statistic,
        "forget_quality": test.p,
        **calibrated,
        "mia_excess": max(0.0, farthest - chance(len(forget), len(holdout))),
    }


def chance(members: int, others: int) -> float:
    """Return how far from .5 an AUC of so many members and others lies by chance alone, in 95 of 100 cases: 1.96
    standard errors of Mann and Whitney's U without ties (1947)."""
    return STANDARD_ERRORS * float(np.sqrt((members + others + 1) / (12 * members * others)))
