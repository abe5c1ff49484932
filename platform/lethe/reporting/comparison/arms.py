"""A comparison's arms with their seeds, and numbers over seeds: what every table and drawing is made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from lethe.records import MemberRecord, StudyRecord, TrialRecord
from lethe.reporting.comparison.layouts import HYPERVOLUME, Column
from lethe.reporting.facts import value

FIRST, SECOND = "FO-", "SO-"  # how SOUL marks one method with optimizers of the first and second order
# Mid-tones that stand out from a light and from a dark page.
COLORS = ("#3b82f6", "#e8590c", "#2f9e44", "#9c5de5", "#d6457f", "#0c9aa8", "#b58105", "#e03131", "#7c8aa0", "#a0703c")


@dataclass(frozen=True)
class Cell:
    """One number per seed (or trial), NaN where there is none."""

    values: tuple[float, ...]

    @property
    def known(self) -> list[float]:
        """The numbers that there are."""
        return [number for number in self.values if not math.isnan(number)]

    @property
    def mean(self) -> float:
        """NaN without a number, infinite with an infinite one."""
        return sum(self.known) / len(self.known) if self.known else math.nan

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None with fewer than two numbers or an infinite one."""
        return statistics.stdev(self.known) if len(self.known) > 1 and math.isfinite(self.mean) else None


@dataclass(frozen=True)
class Seeded:
    """An arm with one seed. `hypervolume` is NaN where no trial of it ended."""

    seed: int
    trials: tuple[TrialRecord, ...]
    chosen: TrialRecord | None
    hypervolume: float


@dataclass(frozen=True)
class Arm:
    """`seeds` has an entry for every seed of the comparison. Arms of one family share a color: FO-X and SO-X; X, X+Y
    and X+Y+Z. `behind`: how many of its family come after it, at most 2; the last is drawn solid."""

    name: str
    color: str
    behind: int
    seeds: tuple[Seeded, ...]

    @property
    def chosen(self) -> list[TrialRecord]:
        """The trials that stand for it, one per seed that has one."""
        return [each.chosen for each in self.seeds if each.chosen]

    @property
    def complete(self) -> list[TrialRecord]:
        """Every complete trial of any seed."""
        return [trial for each in self.seeds for trial in each.trials if trial.verdict == "complete"]

    def cell(self, key: str) -> Cell:
        """A metric of the chosen trials, or the hypervolume, by seed."""
        if key == HYPERVOLUME:
            return Cell(tuple(each.hypervolume for each in self.seeds))
        return Cell(tuple(value(each.chosen.metrics, key) if each.chosen else math.nan for each in self.seeds))

    def shown(self, column: Column) -> Cell:
        """`cell` in the column's unit."""
        return Cell(tuple(number * column.factor for number in self.cell(column.key).values))


def seeds(record: StudyRecord) -> list[int]:
    """Seeds that were begun, in the study's order."""
    return list(dict.fromkeys(member.seed for member in record.members))


def arms(record: StudyRecord) -> list[Arm]:
    """Every arm in the study's order, those that were not reached too; empty for a plain study."""
    if not record.members:
        return []
    planned = record.study.get("compare", {}).get("arms", {})
    order = list(dict.fromkeys([*planned, *(member.arm for member in record.members)]))
    families: dict[str, list[str]] = {}
    for name in order:
        families.setdefault(_family(name), []).append(name)
    trials = {trial.number: trial for trial in record.trials}
    members = {(member.arm, member.seed): member for member in record.members}

    def arm(name: str) -> Arm:
        found = tuple(_seeded(seed, members.get((name, seed)), trials) for seed in seeds(record))
        own, place = families[_family(name)], list(families).index(_family(name))
        return Arm(name, COLORS[place % len(COLORS)], min(2, len(own) - 1 - own.index(name)), found)

    return [arm(name) for name in order]


def legend(of: Iterable[Arm]) -> dict[str, str]:
    """By color, the names of the arms that share it."""
    found: dict[str, list[str]] = {}
    for arm in of:
        found.setdefault(arm.color, []).append(arm.name)
    return {color: ", ".join(names) for color, names in found.items()}


def colors(of: Iterable[Arm]) -> dict[int, str]:
    """The color of every trial's arm, by the trial's number."""
    return {trial.number: arm.color for arm in of for each in arm.seeds for trial in each.trials}


def _family(name: str) -> str:
    return name.removeprefix(FIRST).removeprefix(SECOND).partition("+")[0]


def _seeded(seed: int, member: MemberRecord | None, trials: dict[int, TrialRecord]) -> Seeded:
    if member is None or not member.trials:
        return Seeded(seed, (), None, math.nan)
    own = tuple(trials[number] for number in member.trials)
    chosen = None if member.chosen is None else trials[member.chosen]
    return Seeded(seed, own, chosen, member.hypervolume)
