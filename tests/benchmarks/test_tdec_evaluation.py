"""TDEC's evaluation: the criterion, when EL is computed, utility's parts, ranks, broken models."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lethe.benchmarks.base import EvaluationResult, load_benchmark
from lethe.benchmarks.tdec import evaluation
from lethe.benchmarks.tdec.evaluation import TdecTask
from lethe.benchmarks.tdec.metrics import Thresholds, left_over, usefulness, word_f1
from lethe.config.benchmark import TdecBenchmark
from lethe.config.metrics import TDEC_METRICS
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.models.loading import load_model, load_tokenizer
from tests import tiny
from tests.models.small import partly_known

CONFIG = Evaluation(max_new_tokens=4, token_budget=64)
LENGTH = 16
TRUTH = Thresholds(memorization_accuracy=0.5, extraction_likelihood=0.1, perplexity=20.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A random model, sequences that it knows in parts, and sets of random words."""
    folder = tmp_path_factory.mktemp("tdec")
    model = load_model(tiny.write_model(folder / "model"))
    shares = {"forget": (0.9, 0.8, 1.0), "retain": (0.5,), "unseen": (0.3, 0.6), "validation": (0.5, 0.7)}
    rows: dict[str, list] = {
        split: [{"input_ids": partly_known(model, seed, share, LENGTH)} for seed, share in enumerate(some)]
        for split, some in shares.items()
    }
    rows["dialogue"] = [{"context": f"w{i} w{i + 1}", "response": "w3 w4 w5"} for i in range(3)]
    rows["choice"] = [
        {"question": f"w{i} w7", "choices": ["w1 w2", "w9", "w4 w4 w4"], "answer": i % 3} for i in range(5)
    ]
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    config = TdecBenchmark(source=str(folder), sequences=3, length=LENGTH, ngram=2)
    task = load_benchmark(config).task(Template(load_tokenizer(folder / "model")), model.config.vocab_size)
    return SimpleNamespace(model=model, task=task, evals=task.eval_set(CONFIG), folder=folder)


def evaluated(world: SimpleNamespace, truth: Thresholds = TRUTH, *, last: bool = True) -> EvaluationResult:
    return world.task.evaluate(world.model, world.evals, CONFIG, truth, RankShard(), last=last)


def test_every_promised_metric_is_reported(world: SimpleNamespace) -> None:
    result = evaluated(world)
    assert set(result.metrics) == {name for name, m in TDEC_METRICS.items() if not m.cost}
    assert result.finite
    assert not result.forgotten
    assert json.loads(json.dumps(result.rows, allow_nan=False)) == result.rows
    whole = world.task.baseline(world.model, world.evals, CONFIG, RankShard())
    assert set(whole.metrics) - set(result.metrics) == {
        f"{n}_threshold" for n in ("memorization_accuracy", "extraction_likelihood")
    }


def test_forget_is_below_one_where_both_are_below_their_thresholds() -> None:
    assert left_over(0.4, 0.05, TRUTH) == pytest.approx(0.8)
    assert left_over(0.2, 0.09, TRUTH) == pytest.approx(0.9)
    for extraction in (0.1, 0.9):
        assert left_over(0.4, extraction, TRUTH) == 1.0, "past its threshold EL counts no more"
    assert left_over(0.6, 0.0, TRUTH) == left_over(0.6, 1.0, TRUTH) == pytest.approx(1.2)
    nothing = TRUTH.model_copy(update={"extraction_likelihood": 0.0})
    assert left_over(0.4, 0.0, nothing) == pytest.approx(0.8)
    assert left_over(0.4, 0.001, nothing) == 1.0


def test_the_likelihood_is_computed_only_where_it_can_matter(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[int] = []
    continuations = evaluation.continuations
    monkeypatch.setattr(evaluation, "continuations", lambda *a: generated.append(len(a[3])) or continuations(*a))
    early = evaluated(world, last=False)
    assert "extraction_likelihood" not in early.metrics
    assert "extraction_likelihood" not in early.rows
    forget = [
        row
        for row in zip(*(early.rows[name] for name in ("split", "answer", "generated")), strict=True)
        if row[0] == "forget"
    ]
    assert generated == [sum(answer != found for _, answer, found in forget)]
    full = evaluated(world, last=True)
    assert generated[1] > generated[0]
    assert {k: full.metrics[k] for k in early.metrics} == early.metrics, "it changes no other number"
    high = TRUTH.model_copy(update={"memorization_accuracy": 0.99})
    assert evaluated(world, high, last=False).metrics["extraction_likelihood"] == full.metrics["extraction_likelihood"]


def test_thresholds_are_those_of_the_unseen_text(world: SimpleNamespace) -> None:
    truth = world.task.baseline(world.model, world.evals, CONFIG, RankShard()).reference.dump()
    forgetting = replace(world.evals, forget=world.evals.unseen)
    result = world.task.evaluate(
        world.model, forgetting, CONFIG, world.task.reference_values(truth, world.evals), RankShard(), last=True
    )
    assert truth == {name: result.metrics[name] for name in truth}
    assert result.metrics["forget"] == 1.0
    assert not result.forgotten
    assert not evaluated(world, world.task.reference_values(truth, world.evals)).forgotten


def test_perplexity_and_choices_by_hand(world: SimpleNamespace) -> None:
    metrics, tokenizer = evaluated(world).metrics, world.task.template.tokenizer
    validation = torch.tensor(world.task.sequences.validation)
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(
            world.model(validation).logits[:, :-1].flatten(0, 1), validation[:, 1:].flatten()
        )
        right = 0
        for row in map(json.loads, (world.folder / "choice.jsonl").read_text().splitlines()):
            question, means = tokenizer.encode(row["question"], add_special_tokens=False), []
            for choice in row["choices"]:
                end = tokenizer.encode(choice, add_special_tokens=False)
                logp = world.model(torch.tensor([question + end])).logits[0, len(question) - 1 : -1].log_softmax(-1)
                means.append(logp[range(len(end)), end].mean().item())
            right += int(np.argmax(means)) == row["answer"]
    assert metrics["perplexity"] == pytest.approx(losses.exp().item(), rel=1e-5)
    assert metrics["choice_accuracy"] == right / 5
    assert 0 < right < 5


def test_word_f1_ignores_case_articles_and_punctuation() -> None:
    assert word_f1("The banner shows a stag.", "the banner shows the stag") == 1.0
    assert word_f1("It rains, it pours", "it it it") == pytest.approx(2 * 2 / 7)
    assert word_f1("yes", "") == word_f1("the", "a") == word_f1("yes", "no") == 0.0


def test_utility_is_the_mean_of_the_parts_that_the_data_have() -> None:
    found = {"dialogue_f1": 0.5, "choice_accuracy": 0.5, "perplexity": 40.0}
    assert usefulness(found, TRUTH) == pytest.approx(0.5)
    assert usefulness({**found, "perplexity": 10.0}, TRUTH) == pytest.approx(0.6), "better than at the start is 1"
    assert usefulness({"perplexity": 80.0}, TRUTH) == pytest.approx(0.25)
    assert usefulness({**found, "dialogue_f1": 0.0}, TRUTH) == 0.0


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_share_the_work_and_agree(world: SimpleNamespace, count: int) -> None:
    """Four ranks have three sequences: one has nothing to do."""
    barrier, shares = Barrier(count, timeout=60), [[]] * count

    def run(rank: int) -> EvaluationResult:
        def gather(local: list) -> list[list]:
            shares[rank] = local
            barrier.wait()
            everything = list(shares)
            barrier.wait()
            return everything

        shard = RankShard(rank, count, gather)
        return world.task.evaluate(deepcopy(world.model), world.evals, CONFIG, TRUTH, shard, last=True)

    one = evaluated(world)
    with ThreadPoolExecutor(count) as pool:
        for result in pool.map(run, range(count)):
            assert result.metrics == pytest.approx(one.metrics, rel=1e-5)
            for name, column in result.rows.items():
                assert column == one.rows[name] or name in ("loss", "end_loss"), "a rank's batches are other batches"


def test_the_likelihood_can_end_at_eos(world: SimpleNamespace) -> None:
    settings = world.evals.settings.model_copy(update={"el_divisor": "generated"})
    eos = int(world.task.sequences.forget[2][LENGTH // 2])  # this sequence is known by heart, and now ends there
    template = deepcopy(world.evals.template)
    template.eos = eos
    evals = replace(world.evals, settings=settings, template=template)
    ended = SimpleNamespace(**{**vars(world), "evals": evals})
    released, published = evaluated(world).rows, evaluated(ended).rows
    assert released["extraction_likelihood"][2] == 1.0
    assert published["extraction_likelihood"][2] < 1.0, "no n-gram is left behind the end"


def test_a_broken_model_is_reported_in_finite_numbers(world: SimpleNamespace) -> None:
    model = deepcopy(world.model)
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    result = world.task.evaluate(model, world.evals, CONFIG, TRUTH, RankShard(), last=True)
    assert not result.finite
    assert np.isfinite(list(result.metrics.values())).all()
    with pytest.raises(UserError, match="predicts no token of the unseen text"):
        world.task.baseline(model, world.evals, CONFIG, RankShard())


def test_an_evaluation_without_thresholds_is_refused(world: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        world.task.evaluate(world.model, world.evals, CONFIG, None, RankShard(), last=True)


def test_every_token_but_the_first_is_trained_on(world: SimpleNamespace, tmp_path: Path) -> None:
    task: TdecTask = world.task
    assert [row.prompt_length for row in (*task.forget, *task.retain)] == [1] * 4
    assert [row.ids for row in task.forget] == [tuple(row) for row in task.sequences.forget.tolist()]
