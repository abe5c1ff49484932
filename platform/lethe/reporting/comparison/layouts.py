"""Which columns and drawings a comparison has, as data: one layout per paper, the same code for both."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.config.metrics import Direction
from lethe.records import StudyRecord

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
