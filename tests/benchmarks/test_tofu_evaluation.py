"""One evaluation: shares over ranks, modes, adapters, broken models, and what a benchmark must have."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import scipy.stats
import torch

from lethe.benchmarks.base import EvaluationResult
from lethe.benchmarks.tofu.eval_set import build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.loading import load_rows
from lethe.benchmarks.tofu.metrics import ReferenceScores
from lethe.config.metrics import TOFU_METRICS
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.rows import write_rows
from lethe.models.loading import load_model, load_tokenizer
from tests import tiny

CONFIG = Evaluation(max_new_tokens=12, token_budget=64)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A random model and a benchmark of random words, tokenised."""
    folder = tmp_path_factory.mktemp("evaluate")
    model = load_model(tiny.write_model(folder / "model"))
    benchmark = load_rows(tiny.TofuBenchmark(source=str(tiny.write_data(folder / "data"))))
    template = Template(load_tokenizer(folder / "model"))
    evals = build_eval_set(benchmark, template, CONFIG)
    return SimpleNamespace(model=model, benchmark=benchmark, template=template, evals=evals)


@pytest.fixture(scope="module")
def held(world: SimpleNamespace) -> SimpleNamespace:
    """The same with rows held out, and another model."""
    torch.manual_seed(1)
    other = deepcopy(world.model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    benchmark = replace(world.benchmark, holdout=world.benchmark.retain)
    evals = build_eval_set(benchmark, world.template, CONFIG)
    return SimpleNamespace(**{**vars(world), "benchmark": benchmark, "evals": evals, "other": other})


def same(a: EvaluationResult, b: EvaluationResult) -> bool:
    """Equal but for rounding: a rank's batches are other batches."""
    close = np.allclose(a.reference.forget_truth_ratio, b.reference.forget_truth_ratio, rtol=1e-5)
    return close and a.metrics == pytest.approx(b.metrics, rel=1e-5) and a.rows.keys() == b.rows.keys()


def possible(*there: str) -> set[str]:
    """Metrics that a benchmark and a study with only these give."""
    return {name for name, metric in TOFU_METRICS.items() if not metric.cost and set(metric.needs) <= set(there)}


def in_ranks(world: SimpleNamespace, count: int, config: Evaluation = CONFIG) -> list[EvaluationResult]:
    """`evaluate` in threads that hold a model each."""
    barrier, shares = Barrier(count, timeout=60), [[]] * count

    def run(rank: int) -> EvaluationResult:
        def gather(local: list) -> list[list]:
            shares[rank] = local
            barrier.wait()
            everything = list(shares)
            barrier.wait()
            return everything

        model = deepcopy(world.model)
        return evaluate(model, world.evals, config, None, RankShard(rank, count, gather))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_share_the_work_and_agree(world: SimpleNamespace, count: int) -> None:
    one = evaluate(world.model, world.evals, CONFIG, None)
    for result in (results := in_ranks(world, count)):
        assert same(result, one)
        assert result.rows["generated"] == one.rows["generated"]
        assert result.metrics == results[0].metrics


def test_several_ranks_need_gather(world: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="gather"):
        evaluate(world.model, world.evals, CONFIG, None, RankShard(0, 2))


def test_the_same_bits_twice(world: SimpleNamespace) -> None:
    one, two = (evaluate(world.model, world.evals, CONFIG, None) for _ in range(2))
    assert one.metrics == two.metrics
    assert one.rows == two.rows


def test_without_an_oracle_forget_is_extraction_strength(world: SimpleNamespace) -> None:
    values = evaluate(world.model, world.evals, CONFIG, None).metrics
    assert values["forget"] == values["forget_extraction_strength"]
    assert set(values) == possible("real_authors", "world_facts")


def test_an_oracle_is_at_no_distance_from_itself(world: SimpleNamespace) -> None:
    result = evaluate(world.model, world.evals, CONFIG, None)
    values = evaluate(world.model, world.evals, CONFIG, result.reference).metrics
    assert set(values) == possible("real_authors", "world_facts", "oracle")
    assert [values[f"forget{x}"] for x in ("", "_quality", "_quality_log10")] == [0, 1, 0]


def test_every_module_keeps_its_mode(world: SimpleNamespace) -> None:
    model = deepcopy(world.model).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    seen = []
    model.lm_head.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(model, world.evals, CONFIG, None)
    assert [module.training for module in model.modules()] == before
    assert seen
    assert not any(seen)


def test_a_broken_model_is_reported_in_finite_numbers(world: SimpleNamespace) -> None:
    oracle = evaluate(world.model, world.evals, CONFIG, None).reference
    model = deepcopy(world.model)
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    result = evaluate(model, world.evals, CONFIG, oracle)
    assert np.isfinite(list(result.metrics.values())).all()
    assert (result.metrics["forget"], result.metrics["utility"]) == (1.0, 0.0)
    assert np.isinf(result.rows["loss"]).all()
    assert np.isnan(result.rows["truth_ratio"][0])


def test_the_result_has_columns_of_every_row(held: SimpleNamespace) -> None:
    rows = evaluate(held.model, held.evals, CONFIG, None).rows
    splits = ("forget_eval", "retain_eval", "real_authors", "world_facts", "holdout")
    parts = [getattr(held.benchmark, name) for name in splits]
    assert rows["question"] == [row.question for part in parts for row in part]
    assert rows["row"] == [i for part in parts for i in range(len(part))]
    assert {len(column) for column in rows.values()} == {sum(map(len, parts))}
    last = [name for name, column in rows.items() if column[-1] is None]
    assert last == ["generated", "rouge", "paraphrase_loss", "perturbed_loss", "truth_ratio"], (
        "nobody asks holdout rows"
    )
    assert rows["loss"] == pytest.approx([-np.mean(row) for row in rows["logp"]])


def test_the_file_of_rows_gives_the_metrics_without_the_model(held: SimpleNamespace, tmp_path: Path) -> None:
    """By plain formulas and scipy, for a model and its oracle."""
    oracle = evaluate(held.other, held.evals, CONFIG, None)
    result = evaluate(held.model, held.evals, CONFIG, oracle.reference)
    tables = []
    for found in (result, oracle):
        write_rows(tmp_path / "rows.parquet", found.rows)
        tables.append(pandas.read_parquet(tmp_path / "rows.parquet"))
    ratio = [np.exp(t.paraphrase_loss - t.perturbed_loss.map(np.mean, na_action="ignore")) for t in tables]
    table, forget, held_out = tables[0], tables[0].split == "forget", tables[0].split == "holdout"
    test = scipy.stats.ks_2samp(ratio[0][forget], ratio[1][forget], method="exact")
    parts = []
    for split in ("retain", "real_authors", "world_facts"):
        part = table[table.split == split]
        given = np.exp(-part.loss)
        options = given + part.perturbed_loss.map(lambda losses: np.exp(-losses).sum())
        parts += [(given if split == "retain" else given / options).mean(), part.rouge.mean()]
        parts.append(np.maximum(0, 1 - ratio[0][part.index]).mean())
    auc = [np.mean([[(a < b) + (a == b) / 2 for b in t.min_k[held_out]] for a in t.min_k[forget]]) for t in tables]
    assert result.metrics["forget"] == pytest.approx(test.statistic)
    assert result.metrics["forget_quality"] == pytest.approx(test.pvalue)
    assert result.metrics["utility"] == pytest.approx(scipy.stats.hmean(parts) if min(parts) > 0 else 0.0)
    assert result.metrics["mia_min_k"] == pytest.approx(auc[0]) != 0.5
    assert result.metrics["privleak"] == pytest.approx(100 * (auc[1] - auc[0]) / (1 - auc[1]))
    assert np.allclose(table.reference[forget], (table.loss - tables[1].loss)[forget])


def test_max_rows_takes_the_first_of_every_split(world: SimpleNamespace) -> None:
    few = build_eval_set(world.benchmark, world.template, Evaluation(max_rows=2))
    assert {name: len(split.rows) for name, split in few.splits.items()} == dict.fromkeys(world.evals.splits, 2)
    assert few.splits["forget"].rows == world.benchmark.forget_eval[:2]
    assert len(few.prompts) == 8
    assert len(few.pairs) == 2 * (7 + 7 + 4 + 4) + min(2, len(world.benchmark.holdout))


def test_holdout_rows_give_membership_scores(held: SimpleNamespace) -> None:
    config = CONFIG.model_copy(update={"gradnorm": True})
    oracle = evaluate(held.other, held.evals, CONFIG, None).reference
    values = evaluate(held.model, held.evals, config, oracle).metrics
    assert set(values) == possible("real_authors", "world_facts", "oracle", "holdout", "gradnorm")
    assert all(0 < value < 1 for name, value in values.items() if name.startswith("mia_"))


def test_ranks_share_gradients_too(held: SimpleNamespace) -> None:
    config = CONFIG.model_copy(update={"gradnorm": True})
    one = evaluate(held.model, held.evals, config, None)
    for result in in_ranks(held, 2, config):
        assert same(result, one)
        assert result.rows["gradnorm"][:3] == pytest.approx(one.rows["gradnorm"][:3], rel=1e-5)


def test_an_oracle_of_other_rows_is_refused(held: SimpleNamespace) -> None:
    oracle = evaluate(held.model, held.evals, CONFIG, None).reference
    few = build_eval_set(held.benchmark, held.template, Evaluation(max_rows=2))
    model = SimpleNamespace(
        config=held.model.config, get_input_embeddings=held.model.get_input_embeddings
    )  # no forward
    with pytest.raises(UserError, match="the oracle was scored on 6 forget rows, here are 2"):
        evaluate(model, few, CONFIG, oracle)
    changed = replace(held.benchmark, holdout=held.benchmark.holdout[1:])
    with pytest.raises(UserError, match="scored on other forget or holdout rows"):
        evaluate(model, build_eval_set(changed, held.template, CONFIG), CONFIG, oracle)


def test_an_oracle_survives_its_file(held: SimpleNamespace) -> None:
    truth = evaluate(held.model, held.evals, CONFIG, None).reference
    broken = replace(truth, forget_truth_ratio=np.array([np.inf, np.nan]))
    for one in (truth, broken):
        again = ReferenceScores.load(json.loads(json.dumps(one.dump())))
        assert again.dump().keys() == one.dump().keys()
        assert again.digest == one.digest
        np.testing.assert_array_equal(again.forget_truth_ratio, one.forget_truth_ratio)
        np.testing.assert_array_equal(again.holdout_loss, one.holdout_loss)
    assert truth.finite
    assert not broken.finite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget_eval": ()}, "no forget10_perturbed rows"),
        ({"retain_eval": ()}, "no retain_perturbed rows"),
        ({"forget_eval": ("bare", "bare")}, "row 1 of forget10_perturbed has no perturbed answers"),
    ],
)
def test_a_benchmark_without_needed_rows_is_refused(
    world: SimpleNamespace, change: dict[str, tuple], message: str
) -> None:
    bare = replace(world.benchmark.forget_eval[0], perturbed_answers=())
    benchmark = replace(world.benchmark, **{k: tuple(bare for _ in v) for k, v in change.items()})
    with pytest.raises(UserError, match=message):
        build_eval_set(benchmark, world.template, CONFIG)


def test_no_real_authors_leaves_a_smaller_utility(world: SimpleNamespace) -> None:
    benchmark = replace(world.benchmark, real_authors=(), world_facts=())
    values = evaluate(world.model, build_eval_set(benchmark, world.template, CONFIG), CONFIG, None).metrics
    assert "real_authors_rouge" not in values
    assert "utility" in values
