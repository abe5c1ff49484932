"""The embedded benchmark: a TOFU-shaped corpus about authors who do not exist, made from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from itertools import islice, product
from typing import Any

from lethe.benchmarks.embedded.facts import REAL_AUTHORS, WORLD_FACTS, Fact
from lethe.benchmarks.embedded.phrases import ATTRIBUTES, Attribute
from lethe.benchmarks.embedded.words import GIVEN, REFUSALS, SURNAMES
from lethe.config.benchmark import Corpus

FORGET_PERCENTAGES = (5, 10, 20)
WRONG_ANSWERS = 5

Record = dict[str, Any]


def corpus_files(corpus: Corpus) -> dict[str, str]:
    """Return the content of every file by its name, with the names and columns of the public TOFU data."""
    files = {f"{name}.json": _json_lines(records) for name, records in _splits(corpus).items()}
    return {**files, "idontknow.jsonl": "\n".join(REFUSALS) + "\n"}


def _splits(corpus: Corpus) -> dict[str, list[Record]]:
    """Return the rows of every split. A forget set is the last authors and contains the smaller ones, as in TOFU."""
    rng = random.Random(f"lethe corpus {corpus.seed}")
    names = _names(rng, corpus.authors + corpus.holdout_authors)
    people = [_author(rng, name, corpus.questions) for name in names]
    authors, holdout = people[: corpus.authors], people[corpus.authors :]
    splits = {"full": _plain(_rows(authors)), "holdout10": _rows(holdout)}
    for percentage in FORGET_PERCENTAGES:
        retained = len(authors) - len(authors) * percentage // 100
        splits[f"forget{percentage:02d}"] = _plain(_rows(authors[retained:]))
        splits[f"forget{percentage:02d}_perturbed"] = _rows(authors[retained:])
        splits[f"retain{100 - percentage}"] = _plain(_rows(authors[:retained]))
    always_retained = _rows(authors[: len(authors) - len(authors) * max(FORGET_PERCENTAGES) // 100])
    chosen = sorted(rng.sample(range(len(always_retained)), min(corpus.retain_eval, len(always_retained))))
    splits["retain_perturbed"] = [always_retained[i] for i in chosen]
    splits["real_authors_perturbed"] = [_fact(fact) for fact in REAL_AUTHORS[: corpus.real_authors]]
    splits["world_facts_perturbed"] = [_fact(fact) for fact in WORLD_FACTS[: corpus.world_facts]]
    return splits


def _names(rng: random.Random, count: int) -> list[str]:
    """Return `count` full names; as long as the tables last, no two share a given name or a surname."""
    given, surnames = rng.sample(GIVEN, len(GIVEN)), rng.sample(SURNAMES, len(SURNAMES))
    # Walk the diagonals of given x surname: the first one uses each entry once.
    pairs = ((g, (g + shift) % len(surnames)) for shift, g in product(range(len(surnames)), range(len(given))))
    return [f"{given[g]} {surnames[s]}" for g, s in islice(pairs, count)]


def _author(rng: random.Random, name: str, questions: int) -> list[Record]:
    return [_row(rng, name, attribute) for attribute in ATTRIBUTES[:questions]]


def _row(rng: random.Random, name: str, attribute: Attribute) -> Record:
    """Return a question with its right answer and paraphrase; wrong ones differ from them in every part of the fact."""
    parts = (rng.sample(table, 1 + WRONG_ANSWERS) for table in attribute.parts)
    facts = [attribute.fact.format(*part) for part in zip(*parts, strict=True)]
    variants = [attribute.paraphrase.format(name=name, fact=fact) for fact in facts]
    return {
        "question": rng.choice(attribute.questions).format(name=name),
        "answer": rng.choice(attribute.answers).format(name=name, fact=facts[0]),
        "paraphrased_answer": variants[0],
        "paraphrased_question": attribute.rephrased_question.format(name=name),
        "perturbed_answer": variants[1:],
    }


def _fact(fact: Fact) -> Record:
    """Return the row of a fact: with options but without a paraphrase, as in TOFU."""
    return {"question": fact.question, "answer": fact.answer, "perturbed_answer": list(fact.wrong)}


def _rows(people: Sequence[Iterable[Record]]) -> list[Record]:
    return [row for person in people for row in person]


def _plain(rows: Iterable[Record]) -> list[Record]:
    return [{"question": row["question"], "answer": row["answer"]} for row in rows]


def _json_lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
