"""Whole TDEC runs on a small GPT-Neo that has memorised what it is to forget."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.tdec.extraction import greedy_guesses, memorization_accuracy
from lethe.config.adapter import AnyAdapter, Fila, FullParameters
from lethe.config.benchmark import Documents, TdecBenchmark
from lethe.config.model import EmbeddedGptNeo
from lethe.config.objective import AnyObjective, Ihl, Influence, Retrain
from lethe.config.optimizer import AdamW
from lethe.config.run import Digests, Evaluation, Recipe, Schedule, UnlearnRun
from lethe.errors import UserError
from lethe.models.loading import load_model
from lethe.study.preparation import prepare
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, BaselineRequest, TrialRequest
from lethe.unlearning.worker_entry import run_baseline, run_trial
from tests import tiny

pytestmark = pytest.mark.slow

DOCUMENTS = Documents(tokens=32, memorised=4, retain=24, unseen=3, validation=3, dialogues=3, questions=4)
BENCHMARK = TdecBenchmark(sequences=2, length=32, ngram=4, repeats=8, documents=DOCUMENTS)
MODEL = EmbeddedGptNeo(hidden_size=64, heads=2, vocab_size=400, max_length=96, window=8, epochs=10, learning_rate=6e-3)
EVALUATION = Evaluation(max_new_tokens=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("tdec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(folder))
        prepared = prepare(BENCHMARK, MODEL, progress=lambda *_: None)
        assert prepare(BENCHMARK, MODEL, progress=lambda *_: pytest.fail("nothing is trained twice")) == prepared
        # Workers find the embedded texts under the home; elsewhere they are a folder like a user's.
        source = next((folder / "benchmarks").iterdir())
    benchmark = BENCHMARK.model_copy(update={"source": str(source)})
    digests = prepared.digests
    assets = Assets(
        benchmark=benchmark,
        data_digest=digests.data,
        model_digest=digests.model,
        start=str(prepared.start),
        origin=MODEL,
        cache=str(folder / "cache"),
    )
    request = BaselineRequest(assets=assets, evaluation=EVALUATION, model=prepared.start)
    start = tiny.flat(run_baseline(request, lambda _: None, Alone()))
    (folder / "truth.json").write_text(json.dumps(start["reference"]))
    request = request.model_copy(update={"evaluation": EVALUATION.before_last()})
    interim = tiny.flat(run_baseline(request, lambda _: None, Alone()))
    (folder / "interim.json").write_text(json.dumps(interim["reference"]))
    return SimpleNamespace(folder=folder, prepared=prepared, assets=assets, start=start)


IHL, FILA = Ihl(), Fila(rank=8, fisher_rows=4)


def run(
    world: SimpleNamespace,
    name: str,
    objective: AnyObjective = IHL,
    *,
    rate: float = 1e-2,
    epochs: int = 20,
    adapter: AnyAdapter = FILA,
    assets: Assets | None = None,
    interim: str | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last report and those before it; the model is in `folder / name`."""
    assets = assets or world.assets
    recipe = Recipe(
        objective=objective,
        optimizer=AdamW(learning_rate=rate),
        adapter=adapter,
        schedule=Schedule(epochs=epochs, batch_size=2, decay=False),
        evaluation=EVALUATION,
    )
    digests = Digests(data=assets.data_digest, model=assets.model_digest)
    before: list[dict[str, Any]] = []
    request = TrialRequest(
        run=UnlearnRun(recipe=recipe, digests=digests),
        assets=assets,
        reference=world.folder / "truth.json",
        interim=None if interim is None else world.folder / interim,
        folder=world.folder / name,
    )
    return tiny.flat(run_trial(request, before.append, Alone())), before


def test_the_embedded_model_knows_what_it_saw_often(world: SimpleNamespace) -> None:
    assert world.start["verdict"] == "complete"
    assert world.prepared.oracle is None
    assert world.start["memorization_accuracy"] > 0.9 > 0.6 > world.start["reference"]["memorization_accuracy"] > 0.1
    assert world.start["extraction_likelihood"] > 0.8 > 0.4 > world.start["reference"]["extraction_likelihood"]
    assert world.start["forget"] > 1.5
    model = load_model(world.prepared.start)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.config.attention_layers == ["global", "local"]


def test_a_run_ends_when_the_sequences_are_forgotten(world: SimpleNamespace) -> None:
    last, before = run(world, "forgotten")
    assert last["verdict"] == "complete"
    assert 1 <= last["epoch"] < 20
    assert [r["epoch"] for r in before] == [*range(1, int(last["epoch"]))]
    assert last["epochs_to_criterion"] == last["epoch"]
    assert all(r["forget"] >= 1 > last["forget"] for r in before)
    for metric, threshold in world.start["reference"].items():
        assert metric == "perplexity" or last[metric] < threshold
    assert {s["split"] for s in last["samples"]} == {"forget", "dialogue"}
    assert last["samples"][0]["answer"] != last["samples"][0]["generated"]


def test_the_saved_model_gives_the_reported_accuracy(world: SimpleNamespace) -> None:
    last, _ = run(world, "saved", adapter=FullParameters(), rate=3e-3)
    model = load_model(world.folder / "saved" / "model")
    ids = context_for(world.assets).task.sequences.forget
    assert memorization_accuracy(ids, greedy_guesses(model, ids, 1000)).mean() == pytest.approx(
        last["memorization_accuracy"]
    )
    rows = parquet.read_table(world.folder / "saved" / "rows.parquet").to_pylist()
    by = {
        split: [row for row in rows if row["split"] == split]
        for split in ("forget", "validation", "dialogue", "choice")
    }
    assert np.mean([row["memorization_accuracy"] for row in by["forget"]]) == pytest.approx(
        last["memorization_accuracy"]
    )
    assert np.mean([row["extraction_likelihood"] for row in by["forget"]]) == last["extraction_likelihood"]
    assert np.mean([row["f1"] for row in by["dialogue"]]) == last["dialogue_f1"]
    tokens = [row["tokens"] for row in by["validation"]]
    loss = np.average([row["loss"] for row in by["validation"]], weights=tokens)
    assert np.exp(loss) == pytest.approx(last["perplexity"])
    right = [np.argmin(row["end_loss"]) == row["right_end"] for row in by["choice"]]
    assert np.mean(right) == last["choice_accuracy"]


def test_a_run_that_never_forgets_takes_all_its_epochs(world: SimpleNamespace) -> None:
    last, before = run(world, "never", rate=1e-6, epochs=3)
    assert (last["verdict"], last["epoch"], last["epochs_to_criterion"], len(before)) == ("complete", 3, 3, 2)
    assert last["forget"] > 1
    assert "extraction_likelihood" in last, "it is in the last report whatever MA is"
    assert not any("extraction_likelihood" in report for report in before)


def test_a_run_may_go_on_after_the_criterion(world: SimpleNamespace) -> None:
    ended, _ = run(world, "ended")
    epochs = int(ended["epoch"]) + 2
    benchmark = world.assets.benchmark.model_copy(update={"until_forgotten": False})
    assets = world.assets.model_copy(update={"benchmark": benchmark})
    with pytest.raises(UserError, match="changed since the study began"):
        _ = Context(assets).benchmark  # how long runs are is part of the data's digest
    assets = assets.model_copy(update={"data_digest": load_benchmark(benchmark).digest})
    last, before = run(world, "longer", epochs=epochs, assets=assets)
    assert (last["epoch"], last["epochs_to_criterion"], len(before)) == (epochs, ended["epoch"], epochs - 1)
    same = {k: v for k, v in before[int(ended["epoch"]) - 1].items() if k in ("forget", "utility", "perplexity")}
    assert same == {k: ended[k] for k in same}


def test_interim_evaluations_do_not_move_the_epoch_at_which_sequences_count_as_forgotten(
    world: SimpleNamespace,
) -> None:
    """A whole evaluation confirms it; on the way there the accuracy on all sequences says that it cannot be yet."""
    costs = {"seconds", "cpu_seconds", "train_seconds", "evaluate_seconds", "peak_memory_mb", "evaluated_share"}
    (whole, before), (last, some) = run(world, "whole"), run(world, "some", interim="interim.json")
    assert {k: v for k, v in last.items() if k not in costs} == {k: v for k, v in whole.items() if k not in costs}
    assert last["evaluated_share"] == 1
    assert [r["memorization_accuracy"] for r in some] == [r["memorization_accuracy"] for r in before]
    shares = [r["evaluated_share"] for r in some]
    assert shares[0] == 0.2
    assert sorted(shares) == shares, "from the first whole one on, all are: it cannot be long"


@pytest.mark.parametrize("objective", [Influence(damping=0.1, strength=0.1), Retrain()])
def test_methods_without_a_gradient_loss(world: SimpleNamespace, objective: AnyObjective) -> None:
    """Retraining begins at random weights here, a base that knows no forget row: it takes its whole schedule."""
    torch.manual_seed(0)
    model = load_model(world.prepared.start)
    model.apply(model._init_weights)
    model.save_pretrained(world.folder / "base")
    assets = world.assets.model_copy(update={"origin": str(world.folder / "base")})
    last, before = run(world, objective.name, objective, assets=assets, epochs=2, rate=1e-3)
    epochs = 2 if isinstance(objective, Retrain) else 1
    assert (last["verdict"], last["epoch"], len(before)) == ("complete", epochs, epochs - 1), last
    assert {"forget", "utility", "extraction_likelihood", "epochs_to_criterion"} <= last.keys()


def test_score_gives_the_numbers_of_the_run(world: SimpleNamespace, tmp_path: Path) -> None:
    from lethe.cli.score import main

    report, _ = run(world, "scored", epochs=2)
    start, target = str(world.prepared.start), tmp_path / "scores.json"
    given = {"benchmark.length": 32, "benchmark.sequences": 2, "benchmark.ngram": 4, "run.evaluation.max_new_tokens": 4}
    settings = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    names = [str(world.folder / "scored/model"), start]
    models = ["--benchmark", "tdec", "--source", world.assets.benchmark.source, "--start", start, "--base", start]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(tmp_path))
        assert main([*names, *models, *settings, "--json", str(target)]) == 0
    found, of_start = (model["metrics"] for model in json.loads(target.read_text())["models"])
    assert found == pytest.approx({name: report[name] for name in found}, rel=1e-4)
    assert "extraction_likelihood" in found
    assert of_start == {name: world.start[name] for name in of_start}


def test_audits_of_sequences(world: SimpleNamespace) -> None:
    """Relearning asks for the sequences that are not learned; rounding for everything."""
    from tests.audits.small import audit, by_variant

    recipe = Recipe(objective=Ihl(), optimizer=AdamW(), evaluation=EVALUATION).model_dump(mode="json")
    metrics = {name: value for name, value in world.start.items() if isinstance(value, float)}
    common = {"recipe": recipe, "reference": str(world.folder / "truth.json"), "metrics": metrics}
    start = world.prepared.start
    relearning = {"relearning": {"rows": ["forget", "retain"], "steps": 2, "learning_rate": 1e-4}}
    found = by_variant(audit(world.assets, start, relearning, **common))
    assert found.keys() == {"relearn", "relearn_retain"}
    for one in found.values():
        assert one["after"].keys() == one["before"].keys() == {"memorization_accuracy", "extraction_likelihood"}
        assert one["before"]["memorization_accuracy"] > 0.9
    rounded = by_variant(audit(world.assets, start, {"quantisation": {"bits": [8]}}, **common))["quant8"]
    assert rounded["before"]["utility"] == world.start["utility"]
    assert rounded["after"]["forget"] == pytest.approx(world.start["forget"], rel=0.1)
