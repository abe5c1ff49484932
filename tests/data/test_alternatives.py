"""Other answers to forget questions: every row has some, never the true one, and each epoch draws anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.config.benchmark import TofuBenchmark
from lethe.config.own import OwnBenchmark
from lethe.config.study import load_study
from lethe.data.alternatives import REMEDY, find_alternatives
from lethe.data.refusals import draw_refusals
from lethe.data.source_rows import Question
from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.study.preflight import check_data
from lethe.study.run_requests import absolute

ROWS = [
    Question("Who wrote Moth?", "Ada Lin", None, ("Bo Reed", "ada  lin"), name="row 1 of f"),
    Question("Where is Moth set?", "In Oslo", None, ("In Bergen",), name="row 2 of f"),
    Question("When?", "In 1932", name="row 3 of f"),
]


def file_of(folder: Path, rows: list[dict[str, object]], name: str = "other.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_a_file_gives_several_answers_a_question_and_never_the_true_one(tmp_path: Path) -> None:
    given = file_of(
        tmp_path,
        [
            {"question": "where is  Moth set?", "answer": "In Rome"},
            {"question": "Who wrote Moth?", "answer": "Cy Vale", "wrong_answers": ["Dee Orr"]},
            {"question": "Who wrote Moth?", "answer": "ADA LIN"},
            {"question": "Where is Moth set?", "answer": "In Kyiv"},
            {"question": "Unasked?", "answer": "Yes"},
        ],
    )
    assert find_alternatives(given, ROWS[:2]) == (("Cy Vale", "Dee Orr"), ("In Rome", "In Kyiv"))
    assert find_alternatives("perturbed", ROWS[:2]) == (("Bo Reed",), ("In Bergen",))
    rows = [Question("Who wrote Moth?", "She is called Ada Lin."), Question("Who sang?", "That was Bo Reed.")]
    assert find_alternatives("rule", rows) == (("She is called Bo Reed.",), ("That was Ada Lin.",))


@pytest.mark.parametrize("given", ["perturbed", "file"])
def test_a_row_without_alternative_is_named_without_its_text(given: str, tmp_path: Path) -> None:
    if given == "file":
        given = file_of(tmp_path, [{"question": row.question, "answer": "No"} for row in ROWS[:2]])
    with pytest.raises(UserError) as raised:
        find_alternatives(given, ROWS)
    assert str(raised.value) == f"benchmark.alternatives: {given} has no other answer to row 3 of f: {REMEDY}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "there is no .*or perturbed, rule or generated"),
        ({"text": "A document."}, "has documents: give questions with answers"),
        ({"question": "Who?"}, "answer"),
    ],
)
def test_a_file_without_alternatives_is_refused_by_name(text: object, line: str, tmp_path: Path) -> None:
    given = str(tmp_path / "none.jsonl") if text is None else file_of(tmp_path, [text])  # type: ignore[list-item]
    with pytest.raises(UserError, match=rf"(?s)^benchmark\.alternatives: .*{line}"):
        find_alternatives(given, ROWS)


def test_each_row_draws_from_its_own_alternatives_in_every_epoch() -> None:
    answers = [[f"{row}-{n}" for n in range(1 + row % 4)] for row in range(20)]

    def encode(question: str, answer: str) -> Encoded:
        return Encoded((*question.encode(), *answer.encode()), len(question))

    found = draw_refusals([f"q{row}" for row in range(20)], answers, encode, seed=3, epochs=30)
    drawn = [[bytes(found.of(row, epoch)[1].answer).decode() for epoch in range(1, 31)] for row in range(20)]
    assert [sorted(set(texts)) for texts in drawn] == answers
    assert len(found.rows) == sum(map(len, answers))


def test_benchmarks_have_them_as_data_and_as_text_to_forget(tmp_path: Path) -> None:
    plain, asked = (
        load_benchmark(TofuBenchmark.small().model_copy(update={"alternatives": a})) for a in (None, "rule")
    )
    assert plain.alternatives == ()
    assert len(asked.alternatives) == len(asked.forget_questions)
    assert plain.digest != asked.digest
    assert {text for texts in asked.alternatives for text in texts} <= set(asked.texts(forget_only=True))
    small = OwnBenchmark.small()
    questions = load_benchmark(small).forget_questions
    given = file_of(tmp_path, [{"question": question, "answer": "A stranger."} for question in questions])
    own = load_benchmark(small.model_copy(update={"alternatives": given}))
    assert own.alternatives == (("A stranger.",),) * len(questions)
    assert "A stranger." in set(own.texts(forget_only=True))
    assert own.digest != load_benchmark(small).digest
    generated = load_benchmark(small.model_copy(update={"alternatives": "generated"}))
    assert generated.alternatives == ()
    assert len({generated.digest, own.digest, load_benchmark(small).digest}) == 3
    assert absolute(own.config.model_copy(update={"alternatives": "rule"}), "0").alternatives == "rule"
    assert "alternatives" not in TofuBenchmark().model_dump()


def test_altpo_without_alternatives_is_refused_before_ray_starts() -> None:
    study = load_study("tofu", ["run.objective.name=altpo"])
    with pytest.raises(UserError) as raised:
        check_data(study, load_benchmark(study.benchmark))
    assert str(raised.value) == (
        "objective.name: altpo trains towards other answers, and benchmark.alternatives is not set: give a file of"
        " questions with other answers, perturbed, rule or generated"
    )
    study = load_study("tofu", ["run.objective.name=altpo", "benchmark.alternatives=perturbed"])
    benchmark = load_benchmark(study.benchmark)
    check_data(study, benchmark)
    generated = ["run.objective.name=altpo", "benchmark.alternatives=generated"]
    check_data(load_study("tofu", generated), load_benchmark(TofuBenchmark(alternatives="generated")))
    with pytest.raises(UserError, match=r"^benchmark\.alternatives: generated asks the start model, which .*stage 3"):
        load_study("tofu", [*generated, "run.engine.stage=3"])
