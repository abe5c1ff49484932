"""What a model cannot read is told by name before its first forward pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lethe.benchmarks.tofu.eval_set import build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.loading import load_rows
from lethe.config.run import Evaluation
from lethe.data.template import Encoded, Row, Template
from lethe.errors import UserError
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.generation import generate
from lethe.models.loading import load_model, load_tokenizer
from tests import tiny
from tests.models.architectures import FAMILIES


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("fits")
    model = load_model(tiny.write_model(folder / "model"))
    model.register_forward_pre_hook(lambda *_: pytest.fail("a forward pass came first"))
    benchmark = load_rows(tiny.TofuBenchmark(source=str(tiny.write_data(folder / "data"))))
    return SimpleNamespace(model=model, benchmark=benchmark, template=Template(load_tokenizer(folder / "model")))


def with_row(world: SimpleNamespace, **changes: object) -> tuple[Row, ...]:
    first, second, *others = world.benchmark.forget_eval
    return (first, replace(second, **changes), *others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "\n"}, "row 2 of forget10_perturbed: the answer has no tokens"),
        ({"paraphrased_answer": " "}, "row 2 of forget10_perturbed, paraphrase: the answer has no tokens"),
        ({"perturbed_answers": ("w1", " ")}, "row 2 of forget10_perturbed, wrong answer 2: the answer has no tokens"),
        (
            {"question": "w1 " * 60},
            r"7 of 87 rows are longer than the 64 tokens that the model takes: row 2 of forget10_perturbed \(\d+\), "
            r"row 2 of forget10_perturbed, paraphrase \(\d+\), "
            r"row 2 of forget10_perturbed, wrong answer 1 \(\d+\) and 4 more",
        ),
    ],
)
def test_rows_that_the_model_cannot_read_are_refused(
    world: SimpleNamespace, changes: dict[str, object], message: str
) -> None:
    benchmark = replace(world.benchmark, forget_eval=with_row(world, **changes))
    evals = build_eval_set(benchmark, world.template, Evaluation(max_rows=4 if "question" in changes else None))
    expected = message.replace("87", str(len(evals.pairs)))
    with pytest.raises(UserError, match=expected):
        evaluate(world.model, evals, Evaluation(), None)


def test_a_tokenizer_of_another_model_is_refused(world: SimpleNamespace, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path)
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"]["w5"] = 99
    (folder / "tokenizer.json").write_text(json.dumps(words))
    evals = build_eval_set(world.benchmark, Template(load_tokenizer(folder)), Evaluation())
    with pytest.raises(
        UserError, match="token id 99, but the model has a vocabulary of 47: the tokenizer is not the model's"
    ):
        evaluate(world.model, evals, Evaluation(), None)


@pytest.mark.parametrize(("length", "refused"), [(64, False), (65, True)])
def test_a_row_as_long_as_the_context_is_accepted(length: int, refused: bool) -> None:
    rows, limits = [("it", Encoded((1,) * length, 3))], ContextLimits("m", 2, 64)
    if refused:
        with pytest.raises(UserError, match="1 of 1 rows are longer than the 64 tokens"):
            check_context_length(rows, limits)
    else:
        check_context_length(rows, limits)
        check_context_length(rows, replace(limits, context=None))


def test_rows_that_would_change_the_rotary_embedding_of_a_batch_are_refused() -> None:
    """Longrope takes other factors for a whole batch as soon as one of its rows is longer than the original context."""
    model = FAMILIES["phi3, longrope"].build()
    limits = ContextLimits.of(model)
    check_context_length([("it", Encoded((1,) * 32, 3))], limits)
    with pytest.raises(UserError, match=r"longer than the 32 tokens that the model takes before its rotary embedding"):
        check_context_length([("it", Encoded((1,) * 33, 3))], limits)
    answers = generate(model, [[5] * 28, [6] * 3], stops=[], pad=0, max_new_tokens=10, token_budget=500)
    assert [len(answer) for answer in answers] == [4, 10]
