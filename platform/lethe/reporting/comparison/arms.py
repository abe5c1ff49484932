"""Which columns and drawings a comparison has, as data: one layout per paper, the same code for both.

A comparison's arms with their seeds, and numbers over seeds: what every table and drawing is made of.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from lethe.config.metrics import Direction
from lethe.records import MemberRecord, StudyRecord, TrialRecord
from lethe.reporting.trial_views import value

HYPERVOLUME = "hypervolume"  # a member's, where every other key is a metric of its chosen trial


@dataclass(frozen=True)
class Column:
    """`key`: a metric or `HYPERVOLUME`, shown times `factor` with `decimals`; `better` is None for plain facts."""

    key: str
    head: str
    group: str = ""
    better: Direction | None = None
    factor: float = 1.0
    decimals: int = 3

    @property
    def title(self) -> str:
        """The heading with an arrow to where better values are."""
        return self.head + {"minimize": " ↓", "maximize": " ↑", None: ""}[self.better]

    @property
    def label(self) -> str:
        """The heading with its group, for an axis."""
        wanted = {"minimize": " (lower is better)", "maximize": " (higher is better)", None: ""}[self.better]
        return f"{self.group} {self.head}".strip() + wanted


@dataclass(frozen=True)
class Layout:
    """`judged`: by what pairs of arms are compared; `curves`: drawn by epoch; `cost`: drawn as x against y."""

    source: str
    note: str
    columns: tuple[Column, ...]
    judged: tuple[Column, ...]
    curves: tuple[Column, ...]
    cost: tuple[Column, Column] | None = None


def _low(key: str, head: str, group: str = "", factor: float = 1.0, decimals: int = 3) -> Column:
    return Column(key, head, group, "minimize", factor, decimals)


def _high(key: str, head: str, group: str = "", factor: float = 1.0, decimals: int = 3) -> Column:
    return Column(key, head, group, "maximize", factor, decimals)


_VOLUME = _high(HYPERVOLUME, "hypervolume", "ours")
_UTILITY = _high("utility", "utility", "ours")

_FORGET_ACC = _low("soul_forget_accuracy", "Acc (choice), %", "forget", 100, 1)
_RETAIN_ACC = _high("soul_retain_accuracy", "Acc (choice), %", "retain", 100, 1)
_TOFU = Layout(
    source="SOUL's Table 2 (Jia et al. 2024, arXiv 2404.18239)",
    note=(
        "Acc (choice): share of rows whose answer has a higher length-normalised probability than the perturbed "
        "answers, where SOUL takes the nearest sentence embedding; Acc (occurs): share of greedy answers that "
        "contain the right one. Forget quality is SOUL's: 1 − p of a KS test of forget against retain rows of the "
        "same model, so a destroyed model has 1. MIA is the AUC of Min-K with forget rows as members. Forget (D) is "
        "the KS distance to the oracle, or extraction strength where there is no oracle."
    ),
    columns=(
        _high("soul_forget_quality", "quality", "forget"),
        _FORGET_ACC,
        _low("forget_rouge", "ROUGE-L", "forget"),
        _low("soul_mia", "MIA", "forget"),
        _RETAIN_ACC,
        _high("retain_rouge", "ROUGE-L", "retain"),
        _high("soul_real_authors_accuracy", "Acc (occurs), %", "real authors", 100, 1),
        _high("real_authors_rouge", "ROUGE-L", "real authors"),
        _high("soul_world_facts_accuracy", "Acc (occurs), %", "world facts", 100, 1),
        _high("world_facts_rouge", "ROUGE-L", "world facts"),
        _low("forget", "forget (D)", "ours"),
        _UTILITY,
        _VOLUME,
    ),
    judged=(_VOLUME,),
    curves=(_FORGET_ACC, _RETAIN_ACC),
)

_EPOCHS = _low("epochs_to_criterion", "epochs to the criterion", "cost", decimals=1)
_EL = _low("extraction_likelihood", "EL10, %", "forget", 100, 1)
_MA = _low("memorization_accuracy", "MA, %", "forget", 100, 1)
_TDEC = Layout(
    source="LoKU's table on TDEC (Cha et al. 2025, arXiv 2408.06621)",
    note=(
        "Parameters: share of all parameters that is trained. Epochs: up to the first at which EL10 and MA are both "
        "below their values on unseen text, all of them where there is none. Choice accuracy stands in for the nine "
        "reasoning sets."
    ),
    columns=(
        Column("trained_share", "parameters, %", "cost", None, 100, 1),
        _EPOCHS,
        _EL,
        _MA,
        _high("choice_accuracy", "choice accuracy, %", "utility", 100, 1),
        _high("dialogue_f1", "dialogue F1, %", "utility", 100, 1),
        _low("perplexity", "perplexity", "utility", decimals=1),
        _low("forget", "forget", "ours"),
        _UTILITY,
        _VOLUME,
    ),
    judged=(_EPOCHS, _VOLUME),
    curves=(_MA, _EL),
    cost=(
        _low("train_seconds", "seconds of training, evaluation excluded", decimals=1),
        _high("utility", "utility"),
    ),
)

LAYOUTS: dict[str, Layout] = {"tofu": _TOFU, "tdec": _TDEC}

COSTS: tuple[Column, ...] = (
    _low("seconds", "minutes", factor=1 / 60, decimals=2),
    _low("train_seconds", "training, s", decimals=1),
    _low("evaluate_seconds", "evaluation, s", decimals=1),
    _low("peak_memory_mb", "peak memory, MiB", decimals=0),
    _low("tokens", "tokens", decimals=0),
    Column("trained_share", "trained parameters, %", factor=100, decimals=1),
    Column("win_rate", "Sophia's win rate"),
)


def layout_of(record: StudyRecord) -> Layout:
    """The layout that the comparison asks for."""
    return LAYOUTS[record.study.get("compare", {}).get("layout", "tofu")]


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
