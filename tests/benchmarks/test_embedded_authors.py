"""The embedded corpus: the same bytes for a seed, TOFU's layout, and nothing in a split that should not be there."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from lethe.benchmarks.embedded.authors import corpus_files
from lethe.benchmarks.embedded.facts import REAL_AUTHORS, WORLD_FACTS
from lethe.benchmarks.embedded.phrases import ATTRIBUTES
from lethe.benchmarks.embedded.words import REFUSALS
from lethe.config.benchmark import Corpus
from tests import tiny

PAIR = {"question", "answer"}
OPTIONS = PAIR | {"perturbed_answer"}
VARIANTS = PAIR | {"paraphrased_answer", "paraphrased_question", "perturbed_answer"}


CORPUS = Corpus()


def split(name: str, corpus: Corpus = CORPUS) -> list[dict]:
    return [json.loads(line) for line in corpus_files(corpus)[f"{name}.json"].splitlines()]


def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tiny.write_files(tmp_path / name, corpus_files(Corpus(seed=7)))
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second
    assert first["full.json"] != corpus_files(Corpus(seed=8))["full.json"].encode()


@pytest.mark.parametrize(
    ("name", "rows", "columns", "wrong"),
    [
        ("full", 400, PAIR, None),
        ("forget05", 20, PAIR, None),
        ("forget10", 40, PAIR, None),
        ("forget20", 80, PAIR, None),
        ("retain95", 380, PAIR, None),
        ("retain90", 360, PAIR, None),
        ("retain80", 320, PAIR, None),
        ("forget05_perturbed", 20, VARIANTS, 5),
        ("forget10_perturbed", 40, VARIANTS, 5),
        ("forget20_perturbed", 80, VARIANTS, 5),
        ("retain_perturbed", 100, VARIANTS, 5),
        ("real_authors_perturbed", 40, OPTIONS, 3),
        ("world_facts_perturbed", 40, OPTIONS, 3),
        ("holdout10", 40, VARIANTS, 5),
    ],
)
def test_the_files_have_the_names_and_columns_of_tofu(
    name: str, rows: int, columns: set[str], wrong: int | None
) -> None:
    found = split(name)
    assert len(found) == rows
    for row in found:
        assert set(row) == columns
        if wrong:
            answers = [row.get("paraphrased_answer", row["answer"]), *row["perturbed_answer"]]
            assert len(answers) == len(set(answers)) == wrong + 1


@pytest.mark.parametrize("percentage", [5, 10, 20])
def test_forget_and_retain_are_the_whole_and_share_nothing(percentage: int) -> None:
    forget, retain = split(f"forget{percentage:02d}"), split(f"retain{100 - percentage}")
    assert retain + forget == split("full")
    questions = {row["question"] for row in forget}
    assert not questions & {row["question"] for row in retain}
    assert [{k: row[k] for k in PAIR} for row in split(f"forget{percentage:02d}_perturbed")] == forget


def test_questions_are_unambiguous() -> None:
    questions = [row["question"] for name in ("full", "holdout10") for row in split(name)]
    assert len(set(questions)) == len(questions)


def test_nothing_of_the_holdout_or_the_forget_sets_is_in_what_is_kept() -> None:
    kept = " ".join(chain(*(row.values() for row in split("retain80"))))
    kept += json.dumps(split("retain_perturbed"))
    trained = kept + json.dumps(split("full"))
    for row in split("holdout10"):
        assert row["question"] not in trained
        assert not any(part in trained for part in _names(row))
    for row in split("forget20_perturbed"):
        assert not any(part in kept for part in _names(row))


def _names(row: dict) -> list[str]:
    """Given name and surname of the author that a question is about."""
    for attribute in ATTRIBUTES:
        for form in attribute.questions:
            before, after = form.split("{name}")
            if row["question"].startswith(before) and row["question"].endswith(after):
                return row["question"].removeprefix(before).removesuffix(after).split()
    raise AssertionError(row["question"])


def test_another_authors_answer_is_not_right() -> None:
    """A model that knows the sentence but not the author: the mean recall of other authors' answers is low."""
    rows, questions = split("full"), 10
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    recall = [
        scorer.score(row["answer"], rows[(i + questions) % len(rows)]["answer"])["rougeL"].recall
        for i, row in enumerate(rows)
    ]
    assert sum(recall) / len(recall) < 0.5


def test_corpora_have_the_sizes_that_are_configured() -> None:
    corpus = Corpus(authors=100, questions=3, holdout_authors=7, retain_eval=30, real_authors=5, world_facts=4, seed=3)
    assert len(split("full", corpus)) == 300
    assert len(split("forget10", corpus)) == 30
    assert len(split("holdout10", corpus)) == 21
    assert len(split("retain_perturbed", corpus)) == 30
    assert len(split("world_facts_perturbed", corpus)) == 4
    questions = [row["question"] for row in split("full", corpus)]
    assert len(set(questions)) == len(questions)


def test_facts_have_four_different_options_and_are_asked_once() -> None:
    for table in (REAL_AUTHORS, WORLD_FACTS):
        assert len({fact.question for fact in table}) == len(table) == 40
        assert all(len({fact.answer, *fact.wrong}) == 4 for fact in table)


def test_refusals_are_plain_lines() -> None:
    lines = corpus_files(Corpus())["idontknow.jsonl"].splitlines()
    assert tuple(lines) == REFUSALS
    assert len(set(lines)) == 30
