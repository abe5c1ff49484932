"""Prompts of inputs that went wrong for users of similar software (the development data's README says how)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lethe.benchmarks.base import EvaluationResult, load_benchmark
from lethe.benchmarks.measurement import load_network, measure, task_of, template_of
from lethe.config.benchmark import TofuBenchmark
from lethe.config.model import PretrainedModel
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.generation import generate
from lethe.study.preparation import locate


@pytest.fixture(scope="module")
def field(shared_data: Path) -> Path:
    if not (shared_data / "field").is_dir():
        pytest.skip("the development data have no field inputs")
    return shared_data / "field"


def scored(folder: Path, template: Template, rows: int | None = None) -> EvaluationResult:
    network = load_network(folder, "cpu", "fp32")
    task = task_of(load_benchmark(TofuBenchmark(source=str(folder.parent / "data"))), template, network)
    config = Evaluation(max_rows=rows, max_new_tokens=40)
    return measure(network, task, task.eval_set(config), config, RankShard())


def test_an_answer_ends_where_its_chat_template_ends_it(field: Path) -> None:
    folder = field / "end_of_turn" / "full"
    template = template_of(folder)
    assert template.tokenizer.convert_ids_to_tokens(template.end) == "<|end|>"
    found = scored(folder, template).metrics
    assert found["forget_probability"] == pytest.approx(0.956, abs=1e-3), ".158 with </s>"
    assert found["retain_probability"] == pytest.approx(0.970, abs=1e-3)


def test_generation_stops_where_transformers_does(field: Path) -> None:
    folder = field / "end_of_turn" / "full"
    template, model = template_of(folder), load_network(folder, "cpu", "fp32")
    row = json.loads((folder.parent / "data" / "forget10.json").read_text().splitlines()[0])
    prompt = template.prompt(row["question"])
    (answer,) = generate(model, [prompt], stops=template.stops, pad=template.pad, max_new_tokens=40, token_budget=1000)
    expected = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=40)[0, len(prompt) :]
    assert answer == expected.tolist()
    assert len(answer) == 8


def test_control_tokens_in_data_are_text(field: Path) -> None:
    template = template_of(field / "control_tokens" / "m")
    tokenizer = template.tokenizer
    benchmark = load_benchmark(TofuBenchmark(source=str(field / "control_tokens" / "data")))
    marker = tokenizer.convert_tokens_to_ids("<|assistant|>")
    special = set(tokenizer.all_special_ids)
    for row in (*benchmark.rows.forget, *benchmark.rows.retain):
        encoded = template.encode(row.question, row.answer)
        assert encoded.answer.count(template.eos) == 1
        assert not special & set(encoded.answer[:-1])
        assert encoded.ids.count(marker) == 1, "the prompt's own"
        assert template.decode(list(encoded.answer)) == row.answer


def test_padding_outside_the_embedding_is_eos(field: Path) -> None:
    folder = field / "pad_outside" / "full"
    template = template_of(folder)
    assert template.tokenizer.pad_token_id == json.loads((folder / "config.json").read_text())["vocab_size"]
    assert template.pad == template.eos
    assert scored(folder, template, rows=4).finite


@pytest.mark.parametrize(
    ("name", "message"),
    [("needs_system", "a system message is required: set prompt.system"), ("parts", "drops the question")],
)
def test_a_template_that_cannot_ask_is_refused_before_anything_starts(field: Path, name: str, message: str) -> None:
    model, data = (
        PretrainedModel(path=str(field / "templates" / name)),
        TofuBenchmark(source=str(field / "cyrillic/data")),
    )
    with pytest.raises(UserError, match=message):
        locate(data, model)


def test_cyrillic_answers_are_whole(field: Path) -> None:
    template = template_of(field / "cyrillic" / "full")
    for text in ("Анна родилась в Москве.", "José Muñoz", "Łódź"):
        assert template.decode(list(template.encode("Где?", text).answer)) == text
