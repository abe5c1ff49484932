"""A comparison's layout (its columns and drawings, as in a paper), its arms by seed, and numbers over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lethe.config.comparison import REFERENCE_METHODS
from lethe.config.loading import overlay
from lethe.config.metrics import Direction
from lethe.records import MemberRecord, StudyRecord, TrialRecord
from lethe.reporting.trial_views import metric_value

HYPERVOLUME = "hypervolume"  # a member's, where every other key is a metric of its chosen trial


@dataclass(frozen=True)
class Column:
    """A column of a table or an axis of a drawing: the metric `key` (or `HYPERVOLUME`) times `factor`.

    `decimals`: how many are shown; `better`: None where no direction is better.
    """

    key: str
    head: str
    group: str = ""
    better: Direction | None = None
    factor: float = 1.0
    decimals: int = 3

    @property
    def title(self) -> str:
        """The heading with an arrow towards better values."""
        return self.head + {"minimize": " ↓", "maximize": " ↑", None: ""}[self.better]

    @property
    def label(self) -> str:
        """The heading with its group, for an axis."""
        direction = {"minimize": " (lower is better)", "maximize": " (higher is better)", None: ""}[self.better]
        return f"{self.group} {self.head}".strip() + direction


@dataclass(frozen=True)
class Layout:
    """Columns of the table and of the drawings, as in the paper that `source` names; `note` explains them.

    `curves`: drawn by epoch; `cost`: x and y of a drawing.
    """

    source: str
    note: str
    columns: tuple[Column, ...]
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
    curves=(_FORGET_ACC, _RETAIN_ACC),
)

_EPOCHS = _low("epochs_to_criterion", "epochs to the criterion", "cost", decimals=1)
_EL = _low("extraction_likelihood", "EL10, %", "forget", 100, 1)
_MA = _low("memorization_accuracy", "MA, %", "forget", 100, 1)
_TDEC = Layout(
    source="LoKU's table on TDEC (Cha et al. 2024, arXiv 2408.06621)",
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
    """Return the layout that the comparison names, by default TOFU's."""
    return LAYOUTS[record.study.get("compare", {}).get("layout", "tofu")]


Symbol = Literal["circle", "square", "triangle-up", "diamond", "cross", "pentagon", "hexagon"]  # as plotly calls them
# One method with several optimizers: AdamW and Sophia, as SOUL marks them by their order, Lion, and Sophia with the
# Hessian of SOUL's code; and the shape of its points, where that is not the second order's diamond.
OPTIMIZERS_BY_NAME: dict[str, Symbol | None] = {"FO": "circle", "Lion": "square", "SO": None, "Released": "pentagon"}
SECOND_ORDER_OPTIMIZERS = ("sophia",)
# Mid-tones that stand out from a light and from a dark page.
COLORS = ("#3b82f6", "#e8590c", "#2f9e44", "#9c5de5", "#d6457f", "#0c9aa8", "#b58105", "#e03131", "#7c8aa0", "#a0703c")
# For X, X+Y and X+Y+Z of the families that have the colors first, and of those that have them again.
SHAPES: tuple[tuple[Symbol, ...], ...] = (("circle", "square", "triangle-up"), ("cross", "pentagon", "hexagon"))


@dataclass(frozen=True)
class Cell:
    """One number per seed (or trial), NaN where it is missing."""

    values: tuple[float, ...]

    @property
    def known(self) -> list[float]:
        """The numbers that are not NaN."""
        return [number for number in self.values if not math.isnan(number)]

    @property
    def mean(self) -> float:
        """Mean of the known numbers: NaN without any, infinite with an infinite one."""
        return sum(self.known) / len(self.known) if self.known else math.nan

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None with fewer than two numbers or an infinite one."""
        return statistics.stdev(self.known) if len(self.known) > 1 and math.isfinite(self.mean) else None


@dataclass(frozen=True)
class ArmSeed:
    """An arm with one seed. `chosen` stands for it, None where no trial can; `hypervolume` is NaN without a trial."""

    seed: int
    trials: tuple[TrialRecord, ...]
    chosen: TrialRecord | None
    hypervolume: float


@dataclass(frozen=True)
class Arm:
    """An arm with an entry in `seeds` for every seed of the comparison.

    Arms of one family share a color: FO-X, Lion-X, SO-X and Released-X; X, X+Y and X+Y+Z. `successors`: how many of its
    family come after it, at most 3; the last is drawn solid, the others dashed. `second_order`: its optimizer is, so it
    is marked by diamonds. `reference`: it is something to compare with, drawn as lines, and wins nothing.
    """

    name: str
    color: str
    successors: int
    seeds: tuple[ArmSeed, ...]
    second_order: bool = False
    reference: bool = False
    shapes: tuple[Symbol, ...] = SHAPES[0]

    @property
    def symbol(self) -> Symbol:
        """The shape of its points: by the beginning of its name, a diamond for a second-order optimizer, else by its
        place in X, X+Y and X+Y+Z."""
        by_name = OPTIMIZERS_BY_NAME.get(_optimizer_part(self.name))
        return by_name or ("diamond" if self.second_order else self.shapes[min(self.successors, 2)])

    @property
    def chosen(self) -> list[TrialRecord]:
        """The chosen trials, one per seed that has one."""
        return [seed.chosen for seed in self.seeds if seed.chosen]

    @property
    def complete(self) -> list[TrialRecord]:
        """Every complete trial of any seed."""
        return [trial for seed in self.seeds for trial in seed.trials if trial.verdict == "complete"]

    def cell(self, key: str) -> Cell:
        """Return the metric `key` of the chosen trials, or with `HYPERVOLUME` that of the fronts, by seed."""
        if key == HYPERVOLUME:
            return Cell(tuple(seed.hypervolume for seed in self.seeds))
        return Cell(tuple(metric_value(seed.chosen.metrics, key) if seed.chosen else math.nan for seed in self.seeds))

    def column_cell(self, column: Column) -> Cell:
        """Return the cell of `column.key` in the column's unit."""
        return Cell(tuple(number * column.factor for number in self.cell(column.key).values))


def seeds(record: StudyRecord) -> list[int]:
    """Return the seeds that were begun, in the study's order."""
    return list(dict.fromkeys(member.seed for member in record.members))


def arms(record: StudyRecord) -> list[Arm]:
    """Return every arm in the study's order, also those that were not reached; empty for a plain study."""
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
        run = arm_parts(record, name)["run"]
        used = {family: (run.get(family) or {}).get("name") for family in ("objective", "optimizer")}
        by_seed = tuple(_arm_seed(seed, members.get((name, seed)), trials) for seed in seeds(record))
        family = families[_family(name)]
        turn, color = divmod(list(families).index(_family(name)), len(COLORS))
        successors = min(3, len(family) - 1 - family.index(name))
        second_order = used["optimizer"] in SECOND_ORDER_OPTIMIZERS
        reference, shapes = used["objective"] in REFERENCE_METHODS, SHAPES[turn % len(SHAPES)]
        return Arm(name, COLORS[color], successors, by_seed, second_order, reference, shapes)

    return [arm(name) for name in order]


def arm_parts(record: StudyRecord, arm: str) -> dict[str, Any]:
    """Return `run` and `space` of the study with the arm's laid over them, as they were written."""
    base = {"run": record.study.get("run", {}), "space": record.study.get("space", {})}
    return overlay(base, record.study.get("compare", {}).get("arms", {}).get(arm, {}))


def arms_by_volume(arms: Iterable[Arm]) -> list[Arm]:
    """Return the arms that have a front and are no references, by mean hypervolume, the largest first."""
    fronts = [arm for arm in arms if not arm.reference and arm.cell(HYPERVOLUME).mean > 0]
    return sorted(fronts, key=lambda arm: -arm.cell(HYPERVOLUME).mean)


def best_arm(arms: Iterable[Arm]) -> Arm | None:
    """Return the first of `arms_by_volume`; None where no arm has a front."""
    return next(iter(arms_by_volume(arms)), None)


def arms_by_trial(arms: Iterable[Arm]) -> dict[int, Arm]:
    """Return the arm of every trial, by the trial's number."""
    return {trial.number: arm for arm in arms for seed in arm.seeds for trial in seed.trials}


def _family(name: str) -> str:
    part = _optimizer_part(name)
    return name.removeprefix(f"{part}-" if part else "").partition("+")[0]


def _optimizer_part(name: str) -> str:
    """Return the beginning of an arm's name that says its optimizer; empty where none does."""
    part, dash, _ = name.partition("-")
    return part if dash and part in OPTIMIZERS_BY_NAME else ""


def _arm_seed(seed: int, member: MemberRecord | None, trials: dict[int, TrialRecord]) -> ArmSeed:
    if member is None or not member.trials:
        return ArmSeed(seed, (), None, math.nan)
    chosen = None if member.chosen is None else trials[member.chosen]
    return ArmSeed(seed, tuple(trials[number] for number in member.trials), chosen, member.hypervolume)
