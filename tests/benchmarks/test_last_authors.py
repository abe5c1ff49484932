"""`benchmark.authors`: the last authors of a TOFU folder are forgotten, those before them kept, the next held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lethe.benchmarks.tofu.loading import TofuRows, load_rows
from lethe.config.benchmark import TofuBenchmark
from lethe.config.study import load_study
from lethe.errors import UserError
from tests import tiny

AUTHORS = 12  # 20 rows each; the last two are forget10, the last three forget15


def row(author: int, number: int) -> dict[str, Any]:
    name = f"author {author} number {number}"
    return {"question": f"{name}?", "answer": name, "paraphrased_answer": f"the {name}", "perturbed_answer": ["no one"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [row(author, number) for author in range(AUTHORS) for number in range(20)]
    facts = [{"question": "Where?", "answer": "there", "perturbed_answer": ["here"]}]
    splits = {
        "forget10": rows[-40:], "retain90": rows[:-40], "forget10_perturbed": rows[-40:],
        "forget15": rows[-60:], "forget15_perturbed": rows[-60:], "retain_perturbed": rows[:20],
        "real_authors_perturbed": facts, "world_facts_perturbed": facts,
    }  # fmt: skip
    tiny.write_files(tmp_path, {f"{name}.json": "\n".join(map(json.dumps, found)) for name, found in splits.items()})
    return tmp_path


def load(folder: Path, **authors: int) -> TofuRows:
    return load_rows(TofuBenchmark(source=str(folder), **authors))


def authors_of(rows: tuple[Any, ...]) -> list[int]:
    assert all(row.question == f"{row.answer}?" for row in rows)
    return [int(row.question.split()[1]) for row in rows]


def test_the_last_authors_are_forgotten_twice_as_many_kept_and_as_many_held_out(folder: Path) -> None:
    found = load(folder, authors=1)
    assert authors_of(found.forget) == [11] * 20
    assert authors_of(found.retain) == [9] * 20 + [10] * 20
    assert authors_of(found.holdout) == [8] * 20
    assert len({*found.forget, *found.retain, *found.holdout}) == 80
    assert found.digest != load(folder).digest


def test_variants_come_from_every_file_that_has_them_and_from_no_other_author(folder: Path) -> None:
    found = load(folder, authors=1)
    assert authors_of(found.forget_eval) == [11] * 20
    assert authors_of(found.retain_eval) == [9] * 20 + [10] * 20, "author 9 has variants in forget15_perturbed alone"
    assert all(row.paraphrased_answer == f"the {row.answer}" for row in found.retain_eval)
    some = load(folder, authors=2, keep_authors=2)
    assert authors_of(some.retain) == [8] * 20 + [9] * 20
    assert authors_of(some.retain_eval) == [9] * 20


@pytest.mark.parametrize(
    ("authors", "message"),
    [
        ({"authors": 4}, "8 to keep and 4 held out have 320 rows, and .* has 240 in retain90 and forget10"),
        (
            {"authors": 3, "keep_authors": 1},
            r"keep_authors: .* has no paraphrases and wrong answers of the kept authors",
        ),
    ],
)
def test_too_few_authors_or_none_with_variants_are_refused(folder: Path, authors: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(folder, **authors)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("benchmark.authors=2", "authors are those of a TOFU folder or hub id"),
        ("benchmark={source: x, keep_authors: 2}", "keep_authors says how many are kept beside benchmark.authors"),
        ("benchmark={source: x, authors: 0}", "benchmark.authors: must be greater than or equal to 1, given 0"),
    ],
)
def test_authors_of_nothing_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_study("tofu", [override])


def test_other_forget_sets_cannot_be_asked_for_beside_authors() -> None:
    config = TofuBenchmark(source="x", authors=2)
    assert config.with_forget_set("forget10") == config
    with pytest.raises(UserError, match=r"benchmark.authors: says what is forgotten in place of forget05"):
        config.with_forget_set("forget05")


def test_without_authors_the_configuration_has_its_earlier_digest() -> None:
    assert TofuBenchmark().digest() == "3de360187fc9c052", "computed before there were such fields"


def test_the_public_data_have_variants_of_all_kept_authors(shared_data: Path) -> None:
    found = load(shared_data / "tofu", authors=2)
    sizes = (len(found.forget), len(found.retain), len(found.holdout))
    assert sizes == (40, 80, 40)
    assert [row.question for row in found.retain_eval] == [row.question for row in found.retain]
    assert found.forget == load(shared_data / "tofu").forget[-40:]
