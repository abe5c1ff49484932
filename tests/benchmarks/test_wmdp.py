"""WMDP: accuracy of multiple-choice questions through lm-evaluation-harness, chance as the floor, bad data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.embedded.fields import town_files
from lethe.config.study import load_study
from lethe.config.wmdp import WmdpBenchmark
from lethe.data.words import same_text
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.lm_eval_study import with_stored_tasks
from lethe.evaluation.lm_eval_tasks import store_tasks
from tests.benchmarks.conforming import EVALUATION, World, make_world
from tests.tasks import write_tasks


@pytest.fixture(autouse=True, scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(WmdpBenchmark, tmp_path_factory.mktemp("world"))


def corpora(folder: Path, *names: str, text: str = "report {}") -> Path:
    """Documents in files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        rows = ({"text": text.format(f"{name} {number}")} for number in range(2))
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_accuracy_is_that_of_plain_forward_passes_over_every_choice(world: World) -> None:
    config = EVALUATION.model_copy(update={"max_rows": None})
    task, encode = world.task, world.task.template.tokenizer.encode
    result = task.baseline(world.model, task.eval_set(config), config, RankShard())

    def logp(question: str, end: str) -> float:
        ids, start = encode(f"{question} {end}"), len(encode(question))
        with torch.no_grad():
            rows = world.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return float(sum(rows[at - 1, ids[at]] for at in range(start, len(ids))))

    files = town_files(world.config.towns)
    for name, metric in (("forgotten_towns", "forget_accuracy"), ("kept_towns", "utility")):
        rows = [json.loads(line) for line in files[f"tasks/{name}.jsonl"].splitlines()]
        right = [np.argmax([logp(r["question"], end) for end in r["choices"]]) == r["answer"] for r in rows]
        assert 0 < np.mean(right) < 1
        assert result.metrics[metric] == result.metrics[f"lm_eval_{name}"] == pytest.approx(np.mean(right))
    assert result.metrics["forget"] == pytest.approx(abs(result.metrics["forget_accuracy"] - 0.25))
    shown = [r for r in zip(*(result.rows[n] for n in ("split", "answer", "generated")), strict=True) if r[2]]
    chosen = [answer == generated for split, answer, generated in shown if split == "forget_questions"]
    assert result.metrics["forget_accuracy"] == pytest.approx(np.mean(chosen))


def test_chance_is_one_over_the_number_of_choices_and_a_model_below_it_has_not_forgotten(
    world: World, tmp_path: Path
) -> None:
    source = corpora(tmp_path / "data", "forget.jsonl", "retain.jsonl")
    rows = "".join(json.dumps({"question": "a", "choices": list("bcde"), "answer": 0}) + "\n" for _ in range(3))
    tasks = write_tasks(tmp_path / "tasks")
    (tasks / "kept.yaml").write_text((tasks / "colours.yaml").read_text().replace("colours", "kept"))
    (tasks / "kept.jsonl").write_text(rows)
    config = WmdpBenchmark(source=str(source), tasks=("colours",), utility_tasks=("kept",), task_path=str(tasks))
    task = load_benchmark(config).task(world.task.template, world.model.config.vocab_size)
    metrics = task.baseline(world.model, task.eval_set(EVALUATION), EVALUATION, RankShard()).metrics
    assert metrics["forget"] == pytest.approx(abs(metrics["forget_accuracy"] - 1 / 3)), "three choices each"


def test_documents_say_what_is_asked_and_no_kept_document_says_what_has_to_go(world: World) -> None:
    files, rows = town_files(world.config.towns), world.benchmark.rows
    for name, said, unsaid in (
        ("forgotten_towns", rows.forget, rows.retain),
        ("kept_towns", rows.retain, rows.forget),
    ):
        for line in files[f"tasks/{name}.jsonl"].splitlines():
            asked = json.loads(line)
            fact = f"{asked['question']} {asked['choices'][asked['answer']]}"
            assert any(fact in text for text in said)
            assert not any(fact in text for text in unsaid)


def test_the_authors_files_are_read_as_one_part(tmp_path: Path) -> None:
    names = [f"{field}-{part}-corpus.jsonl" for field in ("bio", "cyber") for part in ("forget", "retain")]
    source = corpora(tmp_path / "data", *names)
    config = WmdpBenchmark(source=str(source), tasks=("colours",), utility_tasks=("kept",))
    tasks = write_tasks(tmp_path / "tasks")
    (tasks / "kept.yaml").write_text((tasks / "colours.yaml").read_text().replace("task: colours", "task: kept"))
    rows = load_benchmark(config.model_copy(update={"task_path": str(tasks)})).rows
    assert [len(rows.forget), len(rows.retain)] == [4, 4]
    assert all("forget" in same_text(text) for text in rows.forget)


@pytest.mark.parametrize(
    ("files", "text", "message"),
    [
        (["retain.jsonl"], "x {}", "has no forget.jsonl and no file like bio-forget-corpus.jsonl"),
        (["forget.jsonl", "retain.jsonl"], "same", "rows of forget are also in retain"),
        (["forget.jsonl", "retain.jsonl"], " ", "forget.jsonl, row 1: needs a text that is not empty"),
    ],
)
def test_bad_data_are_refused_by_name(tmp_path: Path, files: list[str], text: str, message: str) -> None:
    source, tasks = corpora(tmp_path / "data", *files, text=text), write_tasks(tmp_path / "tasks")
    (tasks / "kept.yaml").write_text((tasks / "colours.yaml").read_text().replace("task: colours", "task: kept"))
    named = {"source": str(source), "task_path": str(tasks), "tasks": ("colours",), "utility_tasks": ("kept",)}
    with pytest.raises(UserError, match=message) as error:
        load_benchmark(WmdpBenchmark.model_validate(named))
    assert "\n" not in str(error.value)


def test_a_study_names_its_task_files_by_their_content(tmp_path: Path) -> None:
    source, tasks = corpora(tmp_path / "data", "forget.jsonl", "retain.jsonl"), write_tasks(tmp_path / "tasks")
    (tasks / "kept.yaml").write_text((tasks / "colours.yaml").read_text().replace("task: colours", "task: kept"))
    given = {"source": str(source), "task_path": str(tasks), "tasks": ["colours"], "utility_tasks": ["kept"]}
    study = with_stored_tasks(load_study("wmdp", [f"benchmark.{key}={json.dumps(v)}" for key, v in given.items()]))
    benchmark = study.benchmark
    assert isinstance(benchmark, WmdpBenchmark)
    assert benchmark.task_path == store_tasks(tasks)
    shutil.rmtree(tasks)  # as on a node that shares the storage root alone
    assert load_benchmark(benchmark).rows.task_path == benchmark.task_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("benchmark.source=x", "tasks: name the tasks of lm-evaluation-harness"),
        ("benchmark.tasks=[wmdp_bio]", "embedded data have theirs"),
        (
            "benchmark={name: wmdp, source: x, tasks: [a], utility_tasks: [a]}",
            "utility_tasks: a is among tasks",
        ),
    ],
)
def test_tasks_are_named_for_data_of_ones_own_and_only_there(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_study("wmdp", [override])
