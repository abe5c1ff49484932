"""From weights to metrics: what an independent implementation (open-unlearning) computed on two small models."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lethe.config.benchmark import TofuBenchmark
from lethe.config.evaluation import Evaluation
from lethe.data.benchmark import load_benchmark
from lethe.data.template import Template
from lethe.evaluation.evaluate import Truth, build_eval_set, evaluate
from lethe.evaluation.scoring import score
from lethe.models.loading import load_model, load_tokenizer

NAMES = {
    "exact_memorization": "forget_exact_memorization",
    "extraction_strength": "forget_extraction_strength",
    "forget_Q_A_Prob": "forget_probability",
    "forget_Q_A_ROUGE": "forget_rouge",
    "forget_truth_ratio": "forget_truth_ratio",
    "model_utility": "utility",
    "mia_loss": "mia_loss",
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
def tiny_tofu(shared_data: Path) -> SimpleNamespace:
    """Both models' results; the oracle's truth ratios are what both are compared with."""
    folder = shared_data / "tiny_tofu"
    benchmark = load_benchmark(TofuBenchmark(source=str(folder / "data"), forget="forget10"))
    config = Evaluation()
    evals = build_eval_set(benchmark, Template(load_tokenizer(folder / "full")), config)
    results: dict[str, Any] = {}
    for name in ("retain90", "full"):
        oracle = Truth(results["retain90"].forget_truth_ratio) if results else None
        results[name] = evaluate(load_model(folder / name), evals, config, oracle)
    return SimpleNamespace(folder=folder, results=results, evals=evals)


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


@pytest.mark.parametrize("name", ["full", "retain90"])
def test_every_forget_row(tiny_tofu: SimpleNamespace, name: str) -> None:
    rows, theirs = tiny_tofu.results[name].rows, expected(tiny_tofu, name, "_per_item")
    assert rows["forget_generated"] == column(theirs["forget_Q_A_ROUGE"], "generation")
    np.testing.assert_allclose(rows["forget_rouge"], column(theirs["forget_Q_A_ROUGE"], "rougeL_recall"), atol=1e-9)
    np.testing.assert_allclose(rows["forget_probability"], column(theirs["forget_Q_A_Prob"], "prob"), atol=1e-4)
    np.testing.assert_allclose(rows["forget_truth_ratio"], column(theirs["forget_truth_ratio"], "score"), rtol=1e-4)
    strength = column(theirs["extraction_strength"], "score")
    np.testing.assert_allclose(rows["forget_extraction_strength"], strength, atol=1e-6)


def test_losses_of_every_perturbed_answer(tiny_tofu: SimpleNamespace) -> None:
    evals = tiny_tofu.evals
    split = evals.splits["forget"]
    pairs = [evals.pairs[i] for row in split.perturbed for i in row]
    scores = score(load_model(tiny_tofu.folder / "retain90"), pairs, pad=evals.template.pad, token_budget=4096)
    theirs = column(expected(tiny_tofu, "retain90", "_per_item")["forget_Q_A_PERT_Prob"], "avg_loss")
    np.testing.assert_allclose(scores.nll_mean, np.ravel(theirs), rtol=1e-4)


def test_distance_to_the_oracle(tiny_tofu: SimpleNamespace) -> None:
    found, theirs = tiny_tofu.results["full"].metrics, expected(tiny_tofu, "full")
    rows = len(tiny_tofu.evals.splits["forget"].rows)
    assert found["forget"] == pytest.approx(0.80, abs=1 / rows + 1e-12)
    assert found["forget_quality_log10"] == pytest.approx(np.log10(theirs["forget_quality"]), abs=1.0)
    assert tiny_tofu.results["retain90"].metrics["forget"] < 1  # its own extraction strength: it had no oracle
