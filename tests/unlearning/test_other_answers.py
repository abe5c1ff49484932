"""Answers that the start model gives in the place of the true ones: others, the same in every process, and no samples
of a model that was never taught to follow instructions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from lethe.benchmarks.base import load_benchmark
from lethe.config.objective import AltPo
from lethe.data.template import Template
from lethe.data.words import same_text
from lethe.errors import UserError
from lethe.evaluation.metrics import rouge_l_recall
from lethe.unlearning import other_answers as module
from lethe.unlearning.context import Context
from lethe.unlearning.other_answers import other_answers
from lethe.unlearning.requests import Assets
from tests import tiny

ROWS = [("w1 w2 w3", "w4 w5 w6 w7 w8"), ("w9 w1 w3", "w10 w11 w12 w13 w14 w15"), ("w2 w2", "w16 w17 w18 w19")]


@pytest.fixture(scope="module")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, Template]:
    """A tiny model that says the answers of ROWS, and its template."""
    assets = tiny.assets(tmp_path_factory.mktemp("tiny"))
    context = Context(assets)
    model, template = context.start, context.template
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        for question, answer in ROWS:
            row = template.encode(question, answer)
            ids = torch.tensor([row.ids])
            labels = ids.clone()
            labels[:, : row.prompt_length] = -100
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval(), template


@pytest.mark.parametrize("instructed", [False, True])
def test_a_model_that_knows_its_rows_gives_other_answers_and_the_same_in_every_process(
    memorised: tuple[PreTrainedModel, Template], instructed: bool
) -> None:
    model, template = memorised
    found = other_answers(model, template, ROWS, instructed=instructed)
    for (_, answer), texts in zip(ROWS, found, strict=True):
        assert 1 <= len(texts) <= (module.SAMPLES if instructed else module.DEPARTURES)
        assert len(set(map(same_text, texts))) == len(texts)
        for text in texts:
            assert text
            assert max(rouge_l_recall(answer, text), rouge_l_recall(text, answer)) < 0.9
    torch.manual_seed(7)
    assert other_answers(model.train(), template, ROWS, instructed=instructed) == found
    assert model.training
    model.eval()


def test_without_instructions_an_answer_begins_as_the_true_one_or_departs_at_once(
    memorised: tuple[PreTrainedModel, Template],
) -> None:
    model, template = memorised
    found = module._departed(model, template, ROWS, [1])[1]
    true = ROWS[1][1].split()
    assert any(text.split()[0] == true[0] for text in found)
    departed = [next(i for i, (a, b) in enumerate(zip(t.split(), true, strict=False)) if a != b) for t in found]
    assert len(set(departed)) > 1


def test_a_row_without_another_answer_is_named_without_its_text(memorised: tuple[PreTrainedModel, Template]) -> None:
    model, template = memorised
    with pytest.raises(UserError) as raised:
        other_answers(model, template, [ROWS[0], ("w1", "")], instructed=False)
    assert str(raised.value) == (
        "benchmark.alternatives: the start model has no other answer to forget row 2: give a file, perturbed or rule"
    )


def test_a_context_makes_them_once_draws_from_them_and_withholds_them(tmp_path: Path) -> None:
    assets = tiny.assets(tmp_path)
    benchmark = assets.benchmark.model_copy(update={"alternatives": "generated"})
    loaded = load_benchmark(benchmark)
    assert loaded.digest != assets.data_digest
    given = assets.model_copy(update={"benchmark": benchmark, "data_digest": loaded.digest, "text": "redact"})
    context: Context = Context(Assets.model_validate(given))
    assert AltPo.needs_alternatives
    assert context.shown.message("nothing") == "nothing"
    texts = {
        context.template.encode(question, text).ids
        for question, answers in zip(loaded.forget_questions, context.alternatives, strict=True)
        for text in answers
    }
    assert {row.ids for row in context.refusals(5, 3, alternatives=True).rows} <= texts
    made = max((text for answers in context.alternatives for text in answers), key=len)
    assert made not in context.shown.message(f"it said {made}")
    assert Context(given).alternatives == context.alternatives
