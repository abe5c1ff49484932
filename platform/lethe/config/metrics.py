"""Metrics that a run reports and a study can search over: names, directions, meanings. Formulas: docs/METHODS.md
sections 4, 5.

Each benchmark has a table; its configuration in `lethe.config.benchmark` names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Need = str  # "oracle", "reference" (it or the base), "gradnorm" (an option), or a split that data may lack
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Metric:
    """One reported number.

    `better`: the direction that a study of unlearning wants. `meaning`: one line for tables and reports. `cost`: the
    number is a run's, so that a start model, which is not trained, has none. `needs`: the metric is not reported
    without all of these. `target`: the value that is best, where neither the smallest nor the largest is.
    """

    better: Direction
    meaning: str
    cost: bool = False
    needs: tuple[Need, ...] = ()
    target: float | None = None


_SETS = {"retain": "retain rows", "real_authors": "questions on real authors", "world_facts": "questions on the world"}
_KINDS = {
    "probability": "length-normalised probability of the right answer on {}",
    "rouge": "ROUGE-L recall of greedy answers to {}",
    "truth_ratio": "max(0, 1 - truth ratio) on {}",
}
UTILITY_PARTS = tuple(f"{rows}_{kind}" for rows in _SETS for kind in _KINDS)  # utility is their harmonic mean

_SIGNALS = {
    "loss": "mean token loss",
    "zlib": "loss over the answer's compressed length",
    "min_k": "Min-K, the least likely 40 % of an answer's tokens",
    "min_k_plus_plus": "Min-K++, the same, standardised by what the model itself would draw",
    "reference": "loss less the oracle's",
    "gradnorm": "the norm of a row's gradient",
}
_FURTHER: dict[str, tuple[Need, ...]] = {"reference": ("oracle",), "gradnorm": ("gradnorm",)}
_OPTIONAL: dict[str, tuple[Need, ...]] = {"real_authors": ("real_authors",), "world_facts": ("world_facts",)}

_MEMBERSHIP = {
    f"mia_{name}": Metric(
        "minimize",
        f"AUC of telling forget rows from rows never trained on by {text}: .5 is blind",
        needs=("holdout", *_FURTHER.get(name, ())),
    )
    for name, text in _SIGNALS.items()
}
PRIVLEAK = {
    "privleak": Metric(
        "maximize",
        "Min-K AUC against the oracle's in percent: 0 like the oracle, below it remembered, above it conspicuous",
        needs=("holdout", "oracle"),
        target=0.0,
    ),
    "privleak_distance": Metric("minimize", "how far privleak is from 0", needs=("holdout", "oracle")),
}

COSTS: dict[str, Metric] = {
    "seconds": Metric("minimize", "wall-clock seconds of the run", cost=True),
    "cpu_seconds": Metric("minimize", "processor seconds of all its workers", cost=True),
    "peak_memory_mb": Metric("minimize", "largest memory of any of its processes, in MB", cost=True),
    "tokens": Metric("minimize", "tokens trained on", cost=True),
}

TOFU_METRICS: dict[str, Metric] = {
    "forget": Metric("minimize", "KS distance D to the oracle; without an oracle, extraction strength on forget rows"),
    "utility": Metric("maximize", "model utility: harmonic mean of nine scores off the forget set"),
    "forget_quality": Metric("maximize", "p of the exact two-sample KS test against the oracle", needs=("oracle",)),
    "forget_quality_log10": Metric("maximize", "log10 of forget_quality, which underflows", needs=("oracle",)),
    "forget_probability": Metric("minimize", _KINDS["probability"].format("forget rows")),
    "forget_rouge": Metric("minimize", _KINDS["rouge"].format("forget rows")),
    "forget_truth_ratio": Metric("maximize", "min(R, 1/R) of the truth ratio R on forget rows"),
    "forget_extraction_strength": Metric("minimize", "1 - k/n: the shortest prefix k that draws out the rest"),
    "forget_exact_memorization": Metric("minimize", "share of forget tokens whose argmax is the label"),
    **{
        f"{s}_{k}": Metric("maximize", text.format(rows), needs=_OPTIONAL.get(s, ()))
        for s, rows in _SETS.items()
        for k, text in _KINDS.items()
    },
    **_MEMBERSHIP,
    **PRIVLEAK,
    "soul_forget_quality": Metric("maximize", "SOUL: 1 - p of a KS test of forget against retain rows, one model"),
    **{
        f"soul_{name}_accuracy": Metric(
            "minimize" if name == "forget" else "maximize", f"SOUL: {text}", needs=_OPTIONAL.get(name, ())
        )
        for name, text in {
            "forget": "share of forget rows whose answer is likelier than the perturbed ones",
            "retain": "share of retain rows whose answer is likelier than the perturbed ones",
            "real_authors": "share of greedy answers on real authors that contain the right one",
            "world_facts": "share of greedy answers on the world that contain the right one",
        }.items()
    },
    "soul_mia": Metric(
        "minimize", "SOUL: Min-K AUC, end of sequence included, forget rows as members", needs=("holdout",)
    ),
    **COSTS,
}

# TDEC, docs/METHODS.md section 5. `forget` < 1 is the criterion to stop by.
TDEC_METRICS: dict[str, Metric] = {
    "forget": Metric("minimize", "max(MA / its threshold, min(1, EL / its threshold)): below 1 is forgotten"),
    "utility": Metric("maximize", "harmonic mean of F1, choice accuracy and start perplexity / perplexity, at most 1"),
    "memorization_accuracy": Metric("minimize", "share of forget tokens that greedy prediction gives (MA)"),
    "extraction_likelihood": Metric("minimize", "n-grams that greedy continuations share with forget sequences (EL)"),
    "perplexity": Metric("minimize", "exp of the mean token loss on validation text"),
    "dialogue_f1": Metric("maximize", "word overlap of greedy replies with the reference"),
    "choice_accuracy": Metric("maximize", "questions whose right end has the highest length-normalised probability"),
    "epochs_to_criterion": Metric("minimize", "epochs until forget was below 1, all of them if never", cost=True),
    **COSTS,
}

# MUSE, docs/METHODS.md section 5b. ROUGE is ROUGE-L's F1.
_VERBMEM, _KNOWMEM = "ROUGE of what greedy text goes on with behind beginnings of", "ROUGE of greedy answers on"
MUSE_METRICS: dict[str, Metric] = {
    "forget": Metric("minimize", "mean gap of VerbMem, KnowMem and Min-K AUC to the oracle's; without one to 0, 0, .5"),
    "utility": Metric("maximize", f"KnowMem: {_KNOWMEM} documents that are kept"),
    "forget_verbmem": Metric("minimize", f"VerbMem: {_VERBMEM} documents to forget"),
    "forget_knowmem": Metric("minimize", f"KnowMem: {_KNOWMEM} documents to forget", needs=("forget_qa",)),
    "earlier_verbmem": Metric("minimize", f"VerbMem: {_VERBMEM} documents of the first request", needs=("earlier",)),
    "earlier_knowmem": Metric("minimize", f"KnowMem: {_KNOWMEM} documents of the first request", needs=("earlier",)),
    **{f"mia_{name}": _MEMBERSHIP[f"mia_{name}"] for name in ("loss", "zlib", "min_k", "min_k_plus_plus")},
    **PRIVLEAK,
    **COSTS,
}

# WMDP, docs/METHODS.md section 5c. Its tasks' own metrics are `harness_metrics`.
WMDP_METRICS: dict[str, Metric] = {
    "forget": Metric("minimize", "how far forget_accuracy is from chance, 1 / number of choices"),
    "utility": Metric("maximize", "mean accuracy of the tasks about what is kept"),
    "forget_accuracy": Metric("minimize", "mean accuracy of the tasks about what has to go; chance is the least"),
    "forget_loss": Metric("maximize", "mean token loss on documents to forget"),
    "retain_loss": Metric("minimize", "mean token loss on documents that are kept"),
    **COSTS,
}


def harness_metrics(tasks: Iterable[str]) -> dict[str, Metric]:
    """Return the metric of each of these tasks of lm-evaluation-harness, by name."""
    return {f"lm_eval_{task}": Metric("maximize", f"lm-evaluation-harness: {task}") for task in tasks}
