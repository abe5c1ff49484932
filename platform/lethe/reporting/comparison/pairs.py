"""Pairs of arms that differ in one thing: what a comparison makes a claim about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm

# By what differs, the beginnings of the names of both arms: AdamW, Lion, Sophia with the published Hessian, and with
# the one of SOUL's code.
BEGINNINGS = {
    "second order": ("FO", "SO"),
    "sign of the momentum": ("FO", "Lion"),
    "the Hessian of SOUL's code": ("SO", "Released"),
}


@dataclass(frozen=True)
class ArmPair:
    """Two arms that differ in one thing, which is `subject`."""

    subject: str
    base: Arm
    other: Arm

    @property
    def name(self) -> str:
        """Both names: `SO-NPO against FO-NPO`."""
        return f"{self.other.name} against {self.base.name}"


def arm_pairs(record: StudyRecord, arms: Sequence[Arm]) -> list[ArmPair]:
    """Return the pairs that the study names (`compare.pairs`), then those that the arms' names tell and it does not."""
    by_name = {arm.name: arm for arm in arms}
    given: Mapping[str, Sequence[Sequence[str]]] = record.study.get("compare", {}).get("pairs", {})
    named = [(subject, base, other) for subject, pairs in given.items() for base, other in pairs]
    known = {frozenset((base, other)) for _, base, other in named}
    named += [pair for pair in _pairs_by_name(list(by_name)) if frozenset(pair[1:]) not in known]
    return [ArmPair(subject, by_name[base], by_name[other]) for subject, base, other in named]


def _pairs_by_name(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (subject, base, other) of the pairs that `BEGINNINGS` tells, then of X and X+Y."""
    found = [
        (subject, name, twin)
        for subject, (base, other) in BEGINNINGS.items()
        for name in names
        if name.startswith(f"{base}-") and (twin := other + name.removeprefix(base)) in names
    ]
    parts = [(name, *name.rpartition("+")) for name in names]
    return found + [(added, base, name) for name, base, _, added in parts if base in names]
