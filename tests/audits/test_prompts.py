"""Other ways of asking: what is asked, of which rows, and what is compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lethe.audits.prompts import split
from lethe.benchmarks.base import load_benchmark
from lethe.config.benchmark import TofuBenchmark
from lethe.data.template import Row
from lethe.evaluation.leaks import Questions
from lethe.unlearning.context import Context
from lethe.unlearning.requests import Assets
from tests.audits.small import audit, by_variant


@pytest.mark.parametrize(
    ("answer", "words", "parts"),
    [("a b c d", 2, ("a b", "c d")), ("a b c", 3, ("a b", "c")), ("a", 3, ("", "a")), ("a  b", 1, ("a", "b"))],
)
def test_giving_first_words_leaves_at_least_one_to_answer(answer: str, words: int, parts: tuple[str, str]) -> None:
    assert split(Row("q", answer), words) == parts


def test_a_memoriser_answers_plain_questions_and_not_strange_ones(assets: Assets) -> None:
    prompts = {"prefixes": ["w1 w2 w3", "w9 w8"], "words": 2}
    found = by_variant(audit(assets, Path(assets.start), {"prompts": {**prompts, "kinds": ["prefix", "first_words"]}}))
    assert found["prefix"]["before"]["forget_rouge"] == 1
    assert found["prefix"]["after"]["forget_rouge"] < 0.9
    assert found["first_words"]["before"] == found["first_words"]["after"] == {"forget_rouge": 1.0}
    each = [
        by_variant(audit(assets, Path(assets.start), {"prompts": {"prefixes": [p], "kinds": ["prefix"]}}))
        for p in prompts["prefixes"]
    ]
    worst = max((one["prefix"]["after"] for one in each), key=lambda after: after["forget_rouge"])
    assert found["prefix"]["after"] == worst


def test_the_first_words_stand_where_the_answer_does(assets: Assets) -> None:
    """The prompt with them is a beginning of the row that was trained on, token by token."""
    context = Context(assets)
    row = context.benchmark.rows.forget_eval[0]
    begun, rest = split(row, 2)
    whole = context.template.encode(row.question, row.answer).ids
    given = context.template.prompt(row.question) + tuple(
        context.template.tokenizer.encode(begun, add_special_tokens=False)
    )
    assert given == whole[: len(whole) - 1 - len(rest.split())]


def test_a_paraphrase_is_another_question_to_the_same_answer(assets: Assets, tmp_path: Path) -> None:
    """Rows whose paraphrased question is the plain one are asked as before; retain questions bring other answers."""
    source = Path(assets.benchmark.source)
    folder = tmp_path / "data"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())

    def paraphrased(questions: list[str]) -> Assets:
        rows = [json.loads(line) for line in (source / "forget10_perturbed.json").read_text().splitlines()]
        lines = [json.dumps({**row, "paraphrased_question": q}) + "\n" for row, q in zip(rows, questions, strict=True)]
        (folder / "forget10_perturbed.json").write_text("".join(lines))
        benchmark = TofuBenchmark(source=str(folder))
        return assets.model_copy(update={"benchmark": benchmark, "data_digest": load_benchmark(benchmark).digest})

    rows = load_benchmark(assets.benchmark).rows
    same = paraphrased([row.question for row in rows.forget_eval])
    others = paraphrased([row.question for row in rows.retain_eval])
    assert same.data_digest != others.data_digest
    asked = {"prompts": {"kinds": ["paraphrase"]}}
    found = by_variant(audit(others, Path(assets.start), asked))["paraphrase"]
    assert found["before"]["forget_rouge"] == 1
    assert found["after"]["forget_rouge"] < 0.5
    paraphrased([row.question for row in rows.forget_eval])
    found = by_variant(audit(same, Path(assets.start), asked))["paraphrase"]
    assert found["before"] == found["after"]


def test_questions_can_be_picked(assets: Assets) -> None:
    context = Context(assets)
    rows = context.benchmark.rows.forget_eval
    whole = Questions.of(context.template, rows)
    assert whole.only([2, 0]) == Questions.of(context.template, [rows[2], rows[0]])
