"""An evaluation says what it leaves out: ends of answers, letters, ends of documents; fewer than eight documents are
fine, and all of a document can count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.tdec.benchmark import Tdec
from lethe.benchmarks.tdec.loading import load_passages, tokenised
from lethe.config.benchmark import TdecBenchmark, TofuBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.models.loading import load_tokenizer
from tests import tiny

LENGTH = 8
SPLITS = ("forget", "retain", "unseen", "validation")


@pytest.fixture
def template(tmp_path: Path) -> Template:
    return Template(load_tokenizer(tiny.write_model(tmp_path / "model")))


def notes(folder: Path, template: Template, **evaluation: object) -> list[str]:
    return [*load_benchmark(TofuBenchmark(source=str(folder))).notes(Evaluation(**evaluation), template)]


def test_answers_longer_than_the_cap_are_counted(tmp_path: Path, template: Template) -> None:
    folder = tiny.write_data(tmp_path / "data")
    names = ("forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
    rows = [json.loads(line) for name in names for line in (folder / f"{name}.json").read_text().splitlines()]
    lengths = np.array([len(row["answer"].split()) for row in rows])
    assert notes(folder, template, max_new_tokens=int(lengths.max())) == []
    (line,) = notes(folder, template, max_new_tokens=4)
    long = lengths[lengths > 4]
    assert line.startswith(f"{len(long)} of {len(rows)} answers are longer than run.evaluation.max_new_tokens, 4, ")
    assert f"the longest has {long.max()} tokens" in line
    assert f"a ROUGE of {(4 / long).mean():.2f} on them" in line, "whole words, so the first four of each answer"


def test_answers_with_letters_that_rouge_drops_are_counted(tmp_path: Path, template: Template) -> None:
    folder = tiny.write_data(tmp_path / "data")
    path = folder / "forget10_perturbed.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["answer"], rows[1]["answer"] = "w1 Muñoz", "w1 Łódź"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (line,) = notes(folder, template)
    assert line.startswith("2 of 24 evaluated answers have letters that ROUGE leaves out")
    assert notes(folder, template, rouge="unicode") == []


def documents(folder: Path, **settings: object) -> TdecBenchmark:
    """One document of 20 words in each part."""
    folder.mkdir(exist_ok=True)
    for n, split in enumerate(SPLITS):
        text = " ".join(tiny.WORDS[(n + 3 * k) % 40] for k in range(20))
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": text}) + "\n")
    return TdecBenchmark(source=str(folder), length=LENGTH, ngram=3, **settings)


def test_it_is_said_how_much_of_a_document_is_read(tmp_path: Path, template: Template) -> None:
    config = documents(tmp_path / "docs")
    first, second = Tdec.load(config).notes(Evaluation(), template)
    assert first == "benchmark.sequences is 8: all 1 texts are forgotten"
    assert second.startswith("the first 8 tokens of a text are read: forget 8 of 20 tokens, the longest text has 20; ")
    assert "benchmark.texts: whole reads all" in second
    whole = config.model_copy(update={"texts": "whole", "sequences": 1})
    assert [*Tdec.load(whole).notes(Evaluation(), template)] == []


def test_all_of_a_document_counts(tmp_path: Path, template: Template) -> None:
    config = documents(tmp_path / "docs", texts="whole")
    ids = template.text(json.loads((tmp_path / "docs/forget.jsonl").read_text())["text"])
    found = tokenised(load_passages(config), template, 47).forget
    assert found.tolist() == [[*ids[:8]], [*ids[8:16]], [*ids[12:20]]]
    assert {tuple(row) for row in found.tolist()} != {tuple(ids[:8])}
    first = tokenised(load_passages(documents(tmp_path / "docs")), template, 47).forget
    assert first.tolist() == [[*ids[:8]]]


def test_studies_of_first_tokens_keep_their_digests(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    dumped = documents(folder).model_dump()
    assert {"texts", "allow_overlap"}.isdisjoint(dumped)
    assert load_passages(documents(folder)).digest != load_passages(documents(folder, texts="whole")).digest
