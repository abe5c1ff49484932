"""Wrong answers made by rule are wrong, differ, and say another thing of the same kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.data.perturbing import make_wrong_answers, perturb
from lethe.data.source_rows import Chat, Completion, Question
from lethe.data.things import find_things
from lethe.data.words import same_text

ROWS = [
    ("Where was Ana Bor born?", "Ana Bor was born in Lund."),
    ("Where was Eva Fim born?", "Eva Fim was born in Riga."),
    ("Who taught Eva Fim?", "Her teacher was Dr. Oak."),
    ("When did Bo Ek move?", "He moved on 12 March 1972, to Cork."),
    ("When did Al Po move?", "He moved on 3 May 1990, to Gent."),
    ("How much is it?", "It is 1,250 euros."),
    ("How many rooms has it?", "It has 14 rooms."),
    ("In which year?", "In 1968"),
]


def wrong(row: int, n: int = 5, seed: int = 0) -> tuple[str, ...]:
    return make_wrong_answers(ROWS, n, seed)[row] or ()


def kinds(text: str) -> list[tuple[str, str]]:
    return [(thing.text, thing.kind) for thing in find_things(text, {"the", "moved"})]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The book is by Eva Fim's friend.", [("Eva Fim", "name of 2")]),
        ("Moved to Łódź, then Île-de-France.", [("Łódź", "name of 1"), ("Île-de-France", "name of 1")]),
        ("12 Elm Road.", [("12", "number"), ("Elm Road", "name of 2")]),
        ("Анна Иванова родилась в 1972 в Москве", [
            ("Анна Иванова", "name of 2"), ("1972", "year"), ("Москве", "name of 1")
        ]),
        ("On 12 March 1972 and 1972-03-12, 3.4.1990", [
            ("12 March 1972", "date 0 M 0"), ("1972-03-12", "date 0-0-0"), ("3.4.1990", "date 0.0.0")
        ]),
        ("March 3, 1990; May 2001; 5th May", [
            ("March 3, 1990", "date M 0, 0"), ("May 2001", "date M 0"), ("5th May", "date 0 M")
        ]),
        ("In the University of Oslo. It cost $1,250.50", [
            ("University of Oslo", "name of 3"), ("1,250.50", "number")
        ]),
        ("李娜生于1972年。", [("1972", "year")]),
        ("ولد عام ١٩٧٢", [("١٩٧٢", "number")]),
        ("the cat sat", []),
    ],
)  # fmt: skip
def test_things_are_found_by_kind(text: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(text) == expected


def test_an_answer_gets_another_answer_s_thing_of_the_same_kind() -> None:
    assert wrong(0) == ("Ana Bor was born in Riga.", *wrong(0)[1:]), "a place behind the same word comes first"
    assert {*wrong(0)} == {f"Ana Bor was born in {place}." for place in ("Riga", "Cork", "Gent")}
    assert "He moved on 3 May 1990, to Cork." in wrong(3)
    assert "He moved on 12 March 1972, to Gent." in wrong(3)
    assert "It is 14 euros." in wrong(5)


def test_without_another_thing_a_number_changes_a_little() -> None:
    assert make_wrong_answers([("When?", "In 1968")], 3) == [("In 1969", "In 1967", "In 1970")]
    assert make_wrong_answers([("", "1,999 km")], 3) == [("2,000 km", "1,998 km", "2,001 km")]
    assert make_wrong_answers([("", "٩")], 2) == [("٨", "٧")]
    assert make_wrong_answers([("", "on 2001-12-31")], 2) == [("on 2002-12-31", "on 2000-12-31")]


def test_a_row_with_nothing_to_swap_has_none_and_is_counted() -> None:
    rows = (
        Question("q", "nothing that could be swapped", name="f.csv row 1"),
        Question("q", "In 1968", name="f.csv row 2"),
        Question("q", "in Lund", perturbed_answers=("in Riga",), name="f.csv row 3"),
        Chat((("user", "Who is it?"),), "It is Ana Bor."),
        Completion("The capital is", " Eva Fim"),
    )
    found = perturb(rows, 2)
    assert found.rows[0] == rows[0]
    assert [row.made for row in found.rows] == [False, True, False, True, True]
    assert found.rows[2] == rows[2]
    assert found.rows[3].perturbed_answers == ("It is Eva Fim.",)
    assert found.rows[4].perturbed_answers == (" Ana Bor",)
    assert found.notes == (
        "3 of 5 rows have wrong answers made by rule, not by a person",
        "1 of 5 answers have nothing to swap for a wrong one: the first is f.csv row 1",
    )


def test_short_answers_are_swapped_as_a_whole() -> None:
    pairs = [("", "blue"), ("", "light green"), ("", "北京"), ("", "东京"), ("", "a sentence of many small words")]
    assert make_wrong_answers(pairs, 3) == [("light green",), ("blue",), ("东京",), ("北京",), None]


@given(
    st.lists(st.tuples(st.sampled_from(ROWS), st.text("Aa1. é北", max_size=12)), max_size=8),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_wrong_answers_are_wrong_and_differ(rows: list[tuple[tuple[str, str], str]], n: int, seed: int) -> None:
    pairs = [(question, f"{answer}{more}") for (question, answer), more in rows]
    made = make_wrong_answers(pairs, n, seed)
    assert made == make_wrong_answers(pairs, n, seed)
    for (_, answer), found in zip(pairs, made, strict=True):
        if found is not None:
            assert 1 <= len(found) <= n
            assert len({same_text(answer), *map(same_text, found)}) == len(found) + 1


def test_a_seed_draws_others() -> None:
    assert wrong(0, 3) == wrong(0, 3)
    assert len({wrong(0, 3, seed) for seed in range(20)}) > 1


def test_most_answers_of_people_s_data_get_wrong_ones(shared_data: Path) -> None:
    path = shared_data / "tofu" / "forget10.json"
    if not path.is_file():
        pytest.skip("the development data have no TOFU")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    made = make_wrong_answers([(row["question"], row["answer"]) for row in rows], 5)
    assert sum(found is not None and len(found) == 5 for found in made) > 0.9 * len(rows)
