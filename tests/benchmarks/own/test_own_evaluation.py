"""What an evaluation of one's own rows measures, against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.measurement import load_network, task_of, template_of
from lethe.benchmarks.own.evaluation import OwnTask
from lethe.config.own import OwnBenchmark
from lethe.config.run import Evaluation
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.metrics import rouge_l_recall
from tests import tiny

EVALUATION = Evaluation(max_new_tokens=6, token_budget=256)
WINDOW = {"window": 16, "overlap": 4}
DRAW = np.random.default_rng(3)


def text(words: int) -> str:
    return " ".join(DRAW.choice(tiny.WORDS, words))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


def documents(folder: Path, **texts: str) -> str:
    folder.mkdir()
    for name, content in texts.items():
        (folder / f"{name}.txt").write_text(content)
    return str(folder)


def task_for(model: Path, config: OwnBenchmark) -> OwnTask:
    task = task_of(load_benchmark(config), template_of(model), load_network(model, "cpu"))
    assert isinstance(task, OwnTask)
    return task


def rows_of(task: OwnTask, model: Path) -> dict[str, list]:
    network = load_network(model, "cpu")
    result = task.baseline(network, task.eval_set(EVALUATION), EVALUATION, RankShard())
    rows = result.rows
    chosen = [i for i, split in enumerate(rows["split"]) if split == "forget"]
    return {name: [column[i] for i in chosen] for name, column in rows.items()}


def test_every_token_of_a_document_counts_once(model: Path, tmp_path: Path) -> None:
    sources = {"forget": documents(tmp_path / "f", a=text(40)), "retain": documents(tmp_path / "r", b=text(9))}
    task = task_for(model, OwnBenchmark(**sources, **WINDOW))
    rows = rows_of(task, model)
    whole = task.template.text((tmp_path / "f" / "a.txt").read_text())
    assert rows["tokens"] == [len(whole) - 1]
    # The windows that training sees, scored by transformers alone.
    network = AutoModelForCausalLM.from_pretrained(model)
    logp: list[float] = []
    for pair in task.forget:
        with torch.no_grad():
            logits = network(torch.tensor([pair.ids])).logits[0].double().log_softmax(-1)
        places = range(pair.prompt_length, len(pair.ids))
        logp += [float(logits[i - 1, pair.ids[i]]) for i in places]
    assert max(len(pair.ids) for pair in task.forget) <= 16
    assert len(task.forget) > 2
    assert rows["loss"] == pytest.approx([-np.mean(logp)], rel=1e-5)
    assert rows["probability"] == pytest.approx([np.exp(np.mean(logp))], rel=1e-5)


def test_a_document_is_gone_on_with_from_the_middle_of_each_window(model: Path, tmp_path: Path) -> None:
    sources = {"forget": documents(tmp_path / "f", a=text(30)), "retain": documents(tmp_path / "r", b=text(9))}
    task = task_for(model, OwnBenchmark(**sources, **WINDOW))
    network, rouge = AutoModelForCausalLM.from_pretrained(model), []
    for pair in task.forget:
        middle = max(len(pair.ids) // 2, pair.prompt_length)
        target = pair.ids[middle : middle + EVALUATION.max_new_tokens]
        prompt = torch.tensor([pair.ids[:middle]])
        greedy = network.generate(prompt, max_new_tokens=len(target), do_sample=False)[0, middle:].tolist()
        greedy = greedy[: greedy.index(2)] if 2 in greedy else greedy
        rouge.append(rouge_l_recall(task.template.decode(list(target)), task.template.decode(greedy)))
    assert rows_of(task, model)["rouge"] == pytest.approx([np.mean(rouge)])


def test_chats_are_asked_as_questions_are(model: Path, tmp_path: Path) -> None:
    pairs = [(text(4), text(3)) for _ in range(3)]
    for name, rows in {
        "q.jsonl": [{"question": q, "answer": a} for q, a in pairs],
        "c.jsonl": [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs
        ],
        "r.jsonl": [{"question": text(4), "answer": text(3)}],
    }.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions, chats = (
        rows_of(task_for(model, OwnBenchmark(forget=str(tmp_path / name), retain=str(tmp_path / "r.jsonl"))), model)
        for name in ("q.jsonl", "c.jsonl")
    )
    for column in ("loss", "rouge", "extraction_strength", "generated"):
        assert questions[column] == chats[column]


def test_the_most_that_any_measure_finds_of_a_row_counts(model: Path, tmp_path: Path) -> None:
    rows = [{"question": text(4), "answer": text(3), "paraphrase": text(5)} for _ in range(3)]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.jsonl").write_text(json.dumps({"question": text(4), "answer": text(3)}) + "\n")
    task = task_for(model, OwnBenchmark(forget=str(tmp_path / "f.jsonl"), retain=str(tmp_path / "r.jsonl")))
    network = load_network(model, "cpu")
    result = task.baseline(network, task.eval_set(EVALUATION), EVALUATION, RankShard())
    names = ("probability", "rouge", "extraction_strength", "paraphrase_probability")
    most = [max(result.rows[name][i] for name in names) for i in range(3)]
    assert result.metrics["forget"] == result.metrics["forget_found"] == pytest.approx(np.mean(most))


def test_wrong_answers_can_be_made_by_rule_and_are_said_to_be(model: Path, tmp_path: Path) -> None:
    rows = [{"question": f"w{n}", "answer": f"w{n + 1} {1900 + n}"} for n in range(4)]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.jsonl").write_text(json.dumps({"question": text(4), "answer": text(3)}) + "\n")
    sources = {"forget": str(tmp_path / "f.jsonl"), "retain": str(tmp_path / "r.jsonl")}
    network, metrics = load_network(model, "cpu"), []
    for made in (0, 2):
        config = OwnBenchmark(**sources, made_answers=made)
        benchmark, task = load_benchmark(config), task_for(model, config)
        metrics.append(task.baseline(network, task.eval_set(EVALUATION), EVALUATION, RankShard()).metrics)
        assert ("wrong_answers" in benchmark.missing) == (not made)
    without, with_made = metrics
    assert with_made.keys() - without.keys() == {"forget_truth_ratio"}
    assert {name: with_made[name] for name in without} == pytest.approx(without)
    assert any("made by rule" in note for note in benchmark.notes(EVALUATION, task.template))


def test_leaks_are_those_of_the_chosen_documents(model: Path, tmp_path: Path) -> None:
    texts = {"a": text(30), "b": text(20), "c": text(25)}
    retain = documents(tmp_path / "r", x=text(9))
    network = load_network(model, "cpu")

    def leaks(folder: str, chosen: list[int]) -> dict[str, float]:
        task = task_for(model, OwnBenchmark(forget=folder, retain=retain, **WINDOW))
        return task.leaks(network, chosen, EVALUATION, None, RankShard())

    some = leaks(documents(tmp_path / "all", **texts), [0, 2])
    alone = leaks(documents(tmp_path / "two", a=texts["a"], c=texts["c"]), [0, 1])
    assert some == pytest.approx(alone)
