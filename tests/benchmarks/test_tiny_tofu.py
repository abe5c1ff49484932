"""From weights to metrics: what an independent implementation (open-unlearning) computed on two small models."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lethe.benchmarks.base import EvaluationResult
from lethe.benchmarks.tofu.eval_set import build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.loading import load_rows
from lethe.benchmarks.tofu.metrics import reference_metrics
from lethe.config.benchmark import TofuBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.models.loading import load_model, load_tokenizer

NAMES = {
    "exact_memorization": "forget_exact_memorization",
    "extraction_strength": "forget_extraction_strength",
    "forget_Q_A_Prob": "forget_probability",
    "forget_Q_A_ROUGE": "forget_rouge",
    "forget_truth_ratio": "forget_truth_ratio",
    "model_utility": "utility",
    **{name: name for name in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference")},
    "mia_gradnorm": "mia_gradnorm",
    "privleak": "privleak",
}
PER_ITEM = {
    "retain_probability": "retain_Q_A_Prob",
    "retain_rouge": "retain_Q_A_ROUGE",
    "retain_truth_ratio": "retain_Truth_Ratio",
    "real_authors_probability": "ra_Q_A_Prob_normalised",
    "real_authors_rouge": "ra_Q_A_ROUGE",
    "real_authors_truth_ratio": "ra_Truth_Ratio",
    "world_facts_probability": "wf_Q_A_Prob_normalised",
    "world_facts_rouge": "wf_Q_A_ROUGE",
    "world_facts_truth_ratio": "wf_Truth_Ratio",
}


@pytest.fixture(scope="module")
def tiny_tofu(golden: Path) -> SimpleNamespace:
    """Both models' results; the oracle is what both are compared with."""
    folder = golden / "tiny_tofu"
    benchmark = load_rows(TofuBenchmark(source=str(folder / "data"), forget="forget10"))
    config = Evaluation(gradnorm=True)
    evals = build_eval_set(benchmark, Template(load_tokenizer(folder / "full")), config)
    results: dict[str, Any] = {}
    for name in ("retain90", "full"):
        oracle = results["retain90"].reference if results else None
        results[name] = evaluate(load_model(folder / name), evals, config, oracle)
    results["retain90"].metrics.update(reference_metrics(oracle, oracle))
    return SimpleNamespace(folder=folder, results=results, evals=evals, benchmark=benchmark)


def test_an_interim_evaluation_costs_a_fifth_of_the_rows_and_tokens(tiny_tofu: SimpleNamespace) -> None:
    some = build_eval_set(tiny_tofu.benchmark, tiny_tofu.evals.template, Evaluation().before_last())

    def read(evals: Any) -> tuple[int, int, int, int]:
        tokens = sum(len(pair.ids) for pair in evals.pairs), sum(map(len, evals.prompts))
        return len(evals.pairs), len(evals.prompts), *tokens

    ratios = [part / whole for part, whole in zip(read(some), read(tiny_tofu.evals), strict=True)]
    assert max(ratios[:2]) <= 0.2
    assert max(ratios) <= 0.21, "rows differ in length"


def expected(world: SimpleNamespace, name: str, suffix: str = "") -> dict[str, Any]:
    return json.loads((world.folder / name / f"expected_metrics{suffix}.json").read_text())


def column(items: dict[str, Any], key: str) -> list[Any]:
    """A field of every row, in row order."""
    values = items["value_by_index"]
    return [values[i][key] for i in sorted(values, key=int)]


@pytest.mark.parametrize("name", ["full", "retain90"])
def test_metrics(tiny_tofu: SimpleNamespace, name: str) -> None:
    found, theirs = tiny_tofu.results[name].metrics, expected(tiny_tofu, name)
    assert [found[ours] for ours in NAMES.values()] == pytest.approx([theirs[key] for key in NAMES], abs=1e-4)


@pytest.mark.parametrize("name", ["full", "retain90"])
def test_utility_components(tiny_tofu: SimpleNamespace, name: str) -> None:
    found, theirs = tiny_tofu.results[name].metrics, expected(tiny_tofu, name, "_per_item")
    values = {ours: theirs[key]["agg_value"] for ours, key in PER_ITEM.items()}
    assert {key: found[key] for key in values} == pytest.approx(values, abs=1e-4)


def rows_of(result: EvaluationResult, split: str) -> dict[str, list[Any]]:
    """The columns of one split."""
    return {
        name: [v for v, s in zip(column, result.rows["split"], strict=True) if s == split]
        for name, column in result.rows.items()
    }


@pytest.mark.parametrize("name", ["full", "retain90"])
@pytest.mark.parametrize(
    ("split", "prefix"), [("forget", "forget"), ("retain", "retain"), ("real_authors", "ra"), ("world_facts", "wf")]
)
def test_every_row(tiny_tofu: SimpleNamespace, name: str, split: str, prefix: str) -> None:
    rows, theirs = rows_of(tiny_tofu.results[name], split), expected(tiny_tofu, name, "_per_item")
    assert rows["generated"] == column(theirs[f"{prefix}_Q_A_ROUGE"], "generation")
    np.testing.assert_allclose(rows["rouge"], column(theirs[f"{prefix}_Q_A_ROUGE"], "rougeL_recall"), atol=1e-9)
    np.testing.assert_allclose(np.exp(-np.array(rows["loss"])), column(theirs[f"{prefix}_Q_A_Prob"], "prob"), atol=1e-5)
    perturbed = column(theirs[f"{prefix}_Q_A_PERT_Prob"], "avg_loss")
    np.testing.assert_allclose(rows["perturbed_loss"], perturbed, rtol=1e-4)
    ratio = theirs["forget_truth_ratio" if split == "forget" else f"{prefix}_Truth_Ratio"]
    np.testing.assert_allclose(rows["truth_ratio"], column(ratio, "score"), rtol=1e-4)
    if split in ("forget", "retain"):
        np.testing.assert_allclose(
            rows["paraphrase_loss"], column(theirs[f"{prefix}_Q_A_PARA_Prob"], "avg_loss"), rtol=1e-4
        )


@pytest.mark.parametrize("name", ["full", "retain90"])
@pytest.mark.parametrize("split", ["forget", "holdout"])
def test_every_membership_signal(tiny_tofu: SimpleNamespace, name: str, split: str) -> None:
    """Rows of the `full` model have losses of 1e-3: hence both tolerances."""
    rows, theirs = rows_of(tiny_tofu.results[name], split), expected(tiny_tofu, name, "_per_item")
    rows.setdefault("reference", [0.0] * 100)  # an oracle has none of its own
    for signal in ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm"):
        wanted = column(theirs[f"mia_{signal}"][split], "score")
        np.testing.assert_allclose(rows[signal], wanted, rtol=1e-4, atol=1e-5, err_msg=signal)


@pytest.mark.parametrize("name", ["full", "retain90"])
def test_memory_of_every_forget_row(tiny_tofu: SimpleNamespace, name: str) -> None:
    """Their extraction strength is never 0: where no prefix gives the rest it is 1/n, ours 0."""
    rows, theirs = rows_of(tiny_tofu.results[name], "forget"), expected(tiny_tofu, name, "_per_item")
    least = np.array([1 / (len(logp) - 1) for logp in rows["logp"]])
    strength = np.maximum(rows["extraction_strength"], least)
    np.testing.assert_allclose(strength, column(theirs["extraction_strength"], "score"), atol=1e-6)
    np.testing.assert_allclose(rows["exact_memorization"], column(theirs["exact_memorization"], "score"), atol=1e-6)


def test_distance_to_the_oracle(tiny_tofu: SimpleNamespace) -> None:
    found, theirs = tiny_tofu.results["full"].metrics, expected(tiny_tofu, "full")
    rows = len(tiny_tofu.evals.splits["forget"].rows)
    assert found["forget"] == pytest.approx(0.80, abs=1 / rows + 1e-12)
    assert found["forget_quality_log10"] == pytest.approx(np.log10(theirs["forget_quality"]), abs=1.0)
    own = tiny_tofu.results["retain90"].metrics
    assert (own["forget"], own["forget_quality"]) == (0, 1)
