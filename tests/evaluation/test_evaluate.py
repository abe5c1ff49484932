"""One evaluation: shares over ranks, modes, adapters, broken models, and what a benchmark must have."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lethe.config.evaluation import Evaluation
from lethe.config.metrics import METRICS
from lethe.data.benchmark import load_benchmark
from lethe.data.template import Template
from lethe.errors import BadInput
from lethe.evaluation.evaluate import Result, Truth, build_eval_set, evaluate
from lethe.models.loading import load_model, load_tokenizer
from tests import tiny

CONFIG = Evaluation(max_new_tokens=12, token_budget=64)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A random model and a benchmark of random words, tokenised."""
    folder = tmp_path_factory.mktemp("evaluate")
    model = load_model(tiny.write_model(folder / "model"))
    benchmark = load_benchmark(tiny.TofuBenchmark(source=str(tiny.write_data(folder / "data"))))
    template = Template(load_tokenizer(folder / "model"))
    evals = build_eval_set(benchmark, template, CONFIG)
    return SimpleNamespace(model=model, benchmark=benchmark, template=template, evals=evals)


def same(a: Result, b: Result) -> bool:
    """Equal but for rounding: a rank's batches are other batches."""
    close = np.allclose(a.forget_truth_ratio, b.forget_truth_ratio, rtol=1e-5)
    return close and a.metrics == pytest.approx(b.metrics, rel=1e-5) and a.rows.keys() == b.rows.keys()


def in_ranks(world: SimpleNamespace, count: int) -> list[Result]:
    """`evaluate` in threads that hold a model each."""
    barrier, shares = Barrier(count, timeout=60), [[]] * count

    def run(rank: int) -> Result:
        def gather(local: list) -> list[list]:
            shares[rank] = local
            barrier.wait()
            everything = list(shares)
            barrier.wait()
            return everything

        model = deepcopy(world.model)
        return evaluate(model, world.evals, CONFIG, None, rank=rank, world=count, gather=gather)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_share_the_work_and_agree(world: SimpleNamespace, count: int) -> None:
    one = evaluate(world.model, world.evals, CONFIG, None)
    for result in (results := in_ranks(world, count)):
        assert same(result, one)
        assert result.rows["forget_generated"] == one.rows["forget_generated"]
        assert result.metrics == results[0].metrics


def test_several_ranks_need_gather(world: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="gather"):
        evaluate(world.model, world.evals, CONFIG, None, rank=0, world=2)


def test_the_same_bits_twice(world: SimpleNamespace) -> None:
    one, two = (evaluate(world.model, world.evals, CONFIG, None) for _ in range(2))
    assert one.metrics == two.metrics and one.rows == two.rows


def test_without_an_oracle_forget_is_extraction_strength(world: SimpleNamespace) -> None:
    values = evaluate(world.model, world.evals, CONFIG, None).metrics
    assert values["forget"] == values["forget_extraction_strength"]
    assert set(values) == {name for name, m in METRICS.items() if not m.cost and not name.startswith("forget_quality")}


def test_an_oracle_is_at_no_distance_from_itself(world: SimpleNamespace) -> None:
    result = evaluate(world.model, world.evals, CONFIG, None)
    values = evaluate(world.model, world.evals, CONFIG, Truth(result.forget_truth_ratio)).metrics
    assert set(values) == {name for name, m in METRICS.items() if not m.cost}
    assert [values[f"forget{x}"] for x in ("", "_quality", "_quality_log10")] == [0, 1, 0]


def test_every_module_keeps_its_mode(world: SimpleNamespace) -> None:
    model = deepcopy(world.model).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    seen = []
    model.lm_head.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(model, world.evals, CONFIG, None)
    assert [module.training for module in model.modules()] == before
    assert seen and not any(seen)


def test_a_broken_model_is_reported_in_finite_numbers(world: SimpleNamespace) -> None:
    oracle = Truth(evaluate(world.model, world.evals, CONFIG, None).forget_truth_ratio)
    model = deepcopy(world.model)
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    result = evaluate(model, world.evals, CONFIG, oracle)
    assert np.isfinite(list(result.metrics.values())).all()
    assert (result.metrics["forget"], result.metrics["utility"]) == (1.0, 0.0)
    json.dumps(result.rows, allow_nan=False)


def test_rows_for_the_report(world: SimpleNamespace) -> None:
    rows = evaluate(world.model, world.evals, CONFIG, None).rows
    questions = [row.question for row in world.benchmark.forget_eval]
    assert rows["forget_question"] == questions
    assert {len(values) for name, values in rows.items() if name.startswith("forget")} == {len(questions)}
    assert rows["world_facts_question"] == [row.question for row in world.benchmark.world_facts][:10]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_max_rows_takes_the_first_of_every_split(world: SimpleNamespace) -> None:
    few = build_eval_set(world.benchmark, world.template, Evaluation(max_rows=2))
    assert {name: len(split.rows) for name, split in few.splits.items()} == dict.fromkeys(world.evals.splits, 2)
    assert few.splits["forget"].rows == world.benchmark.forget_eval[:2]
    assert len(few.prompts) == 8 and len(few.pairs) == 2 * (7 + 7 + 4 + 4) + min(2, len(world.benchmark.holdout))


def test_holdout_rows_give_a_membership_score(world: SimpleNamespace) -> None:
    held = replace(world.benchmark, holdout=world.benchmark.retain)
    values = evaluate(world.model, build_eval_set(held, world.template, CONFIG), CONFIG, None).metrics
    assert 0 < values["mia_loss"] < 1
    assert "mia_loss" not in evaluate(world.model, world.evals, CONFIG, None).metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget_eval": ()}, "no forget_eval rows"),
        ({"retain_eval": ()}, "no retain_eval rows"),
        ({"forget_eval": ("bare", "bare")}, "row 1 of forget_eval has no perturbed answers"),
    ],
)
def test_what_a_benchmark_must_have(world: SimpleNamespace, change: dict[str, tuple], message: str) -> None:
    bare = replace(world.benchmark.forget_eval[0], perturbed_answers=())
    benchmark = replace(world.benchmark, **{k: tuple(bare for _ in v) for k, v in change.items()})
    with pytest.raises(BadInput, match=message):
        build_eval_set(benchmark, world.template, CONFIG)


def test_no_real_authors_leaves_a_smaller_utility(world: SimpleNamespace) -> None:
    benchmark = replace(world.benchmark, real_authors=(), world_facts=())
    values = evaluate(world.model, build_eval_set(benchmark, world.template, CONFIG), CONFIG, None).metrics
    assert "real_authors_rouge" not in values and "utility" in values
