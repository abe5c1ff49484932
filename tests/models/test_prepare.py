"""Preparation: what is cached and when it is trained again, what stops it, which model folders are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch

from lethe.benchmarks.base import EvaluationResult, load_benchmark
from lethe.benchmarks.embedded import models as embedded_models
from lethe.benchmarks.tofu.eval_set import build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.metrics import ReferenceScores
from lethe.config.benchmark import Corpus, TofuBenchmark
from lethe.config.model import EmbeddedModel, PretrainedModel
from lethe.config.run import Evaluation
from lethe.data.template import MARKERS, Template
from lethe.errors import UserError
from lethe.models.loading import load_model, load_tokenizer
from lethe.models.subprocess_training import Training, train_in_subprocesses
from lethe.study.model_sources import plain_folder
from lethe.study.preparation import Prepared, prepare

pytestmark = pytest.mark.slow

CORPUS = Corpus(authors=20, questions=2, holdout_authors=1, real_authors=2, world_facts=2, retain_eval=4)
DATA = TofuBenchmark(corpus=CORPUS)
MODEL = EmbeddedModel(hidden_size=16, layers=1, heads=2, vocab_size=400, max_length=128, epochs=1)


def quiet(name: str, share: float) -> None:
    """Shows nothing."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(tmp_path_factory.mktemp("small")))
        return prepare(DATA, MODEL, progress=quiet)


@pytest.fixture
def at_small(small: Prepared, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home in which `small` is cached."""
    home = small.start.parents[1]
    monkeypatch.setenv("LETHE_HOME", str(home))
    return home


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the trainings that are asked for; none is run."""
    names: list[str] = []

    def record(trainings: list[Training], *_: object) -> None:
        names.extend(training.name for training in trainings)

    monkeypatch.setattr(embedded_models, "train_in_subprocesses", record)
    return names


def test_both_models_load_and_share_a_tokenizer(small: Prepared) -> None:
    assert small.oracle is not None
    models = [load_model(folder) for folder in (small.start, small.oracle)]
    assert models[0].config.intermediate_size == MODEL.intermediate_size
    assert not torch.equal(models[0].lm_head.weight, models[1].lm_head.weight)
    assert (small.start / "tokenizer.json").read_bytes() == (small.oracle / "tokenizer.json").read_bytes()
    assert small.digests.model != small.digests.oracle


def test_prompts_are_marked_and_special_tokens_have_the_first_ids(small: Prepared) -> None:
    tokenizer = load_tokenizer(small.start)
    assert tokenizer.convert_ids_to_tokens(list(range(6))) == ["<pad>", "<s>", "</s>", *MARKERS]
    encoded = Template(tokenizer).encode("Who?", "Zoë, “nobody”.")
    assert tokenizer.decode(encoded.ids) == "<s><|user|>Who?<|end|><|assistant|>Zoë, “nobody”.</s>"


def test_a_second_preparation_trains_nothing(small: Prepared, at_small: Path, trained: list[str]) -> None:
    assert prepare(DATA, MODEL) == small
    assert trained == []


def test_another_forget_set_trains_an_oracle_only(at_small: Path, trained: list[str]) -> None:
    other = load_benchmark(DATA.model_copy(update={"forget": "forget20"}))
    full, _ = embedded_models.trained_pair(other, MODEL, quiet)
    assert trained == ["oracle"]
    assert full.is_dir()


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 2}, {"hidden_size": 32}])
def test_another_model_configuration_is_trained_anew(
    at_small: Path, trained: list[str], change: dict[str, int]
) -> None:
    embedded_models.trained_pair(load_benchmark(DATA), MODEL.model_copy(update=change), quiet)
    assert trained == ["full model", "oracle"]


def test_the_same_configuration_gives_the_same_bytes(
    small: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    shares: list[tuple[str, float]] = []
    again = prepare(DATA, MODEL, progress=lambda *report: shares.append(report))
    assert again.digests == small.digests
    assert {name for name, share in shares if share == 1.0} == {"full model", "oracle"}


def test_ctrl_c_ends_the_trainings_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    started: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    first = threading.Event()

    def interrupt(name: str, share: float) -> None:
        if not first.is_set():
            first.set()
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            prepare(DATA, MODEL.model_copy(update={"epochs": 100_000}), progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    training = Training("full model", MODEL.model_dump_json(), "no tokenizer", (), tmp_path)
    with pytest.raises(RuntimeError, match=r"training the full model ended with 1:(.|\n)*Exception"):
        train_in_subprocesses([training], quiet, 1)


def test_rows_that_are_too_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"model.max_length is 16, but the longest row has \d+ tokens"):
        prepare(DATA, MODEL.model_copy(update={"max_length": 16}), progress=quiet)


def test_a_users_own_model_is_taken_as_it_is(small: Prepared, at_small: Path) -> None:
    brought = prepare(DATA, PretrainedModel(path=str(small.start), oracle=str(small.oracle)))
    assert brought == small
    alone = prepare(DATA, PretrainedModel(path=str(small.start)))
    assert alone.oracle is alone.digests.oracle is None


def test_the_development_models_and_data_can_be_prepared(golden: Path) -> None:
    folder = golden / "tiny_tofu"
    data = TofuBenchmark(source=str(folder / "data"))
    found = prepare(data, PretrainedModel(path=str(folder / "full"), oracle=str(folder / "retain90")))
    rows = found.benchmark.rows
    assert (len(rows.forget), len(rows.retain), len(rows.holdout)) == (100, 300, 100)
    assert found.digests.model != found.digests.oracle


@pytest.fixture
def brought(small: Prepared, tmp_path: Path) -> Path:
    """A copy of a whole model folder, to take something from."""
    folder = tmp_path / "brought"
    folder.mkdir()
    for path in small.start.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _sharded(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no \*.safetensors$"),
        (_pickled, r"has no \*.safetensors; it has pickled weights, which are not loaded"),
        (_sharded, "has no model-00002-of-00002.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    ],
)
def test_an_incomplete_model_folder_is_named(brought: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(brought)
    with pytest.raises(UserError, match=f"model.oracle: .*{message}"):
        plain_folder(str(brought), "model.oracle")


def test_a_model_that_cannot_be_found_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"model.path: owner/name is neither a folder nor reachable on the hub"):
        plain_folder("owner/name", "model.path")
    with pytest.raises(UserError, match=r"model.path: there is no folder ./owner/name: give one, a hub id"):
        plain_folder("./owner/name", "model.path")


def test_the_digest_is_that_of_the_content(brought: Path, small: Prepared) -> None:
    from lethe.models.hashing import model_digest

    (brought / "README.md").write_text("unrelated")
    assert model_digest(brought) == small.digests.model
    (brought / "chat_template.jinja").write_text("{{ messages }}")
    assert model_digest(brought) != small.digests.model


def _measured(folder: Path, prepared: Prepared, oracle: ReferenceScores | None) -> EvaluationResult:
    config = Evaluation(max_new_tokens=48)
    eval_set = build_eval_set(prepared.benchmark.rows, Template(load_tokenizer(folder)), config)
    return evaluate(load_model(folder), eval_set, config, oracle)


def test_the_default_models_differ_by_the_forget_set(embedded: Prepared) -> None:
    """Issue 2, point 4: the full model knows the forget set, the oracle does not, both know everything else."""
    assert embedded.oracle is not None
    oracle = _measured(embedded.oracle, embedded, None)
    full = _measured(embedded.start, embedded, oracle.reference)
    assert full.metrics["forget_rouge"] >= 0.95
    assert oracle.metrics["forget_rouge"] <= 0.8
    assert full.metrics["forget_quality"] < 1e-6
    assert min(full.metrics["utility"], oracle.metrics["utility"]) > 0.5
