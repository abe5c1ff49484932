"""The embedded TDEC texts, and the files that a user brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lethe.benchmarks.embedded.towns import OPTIONS, World, document_files
from lethe.benchmarks.tdec.loading import Passages, embedded_documents, load_passages, tokenised, training_rows
from lethe.config.benchmark import Documents, TdecBenchmark
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.tokenizer import as_pretrained, train_tokenizer

DOCUMENTS = Documents(memorised=4, retain=24, unseen=4, validation=4, dialogues=8, questions=8)
PASSAGES = ("forget", "retain", "unseen", "validation")
LENGTH = 8


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    return tmp_path


def lines(name: str, documents: Documents = DOCUMENTS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in document_files(documents)[f"{name}.jsonl"].splitlines()]


def test_a_seed_gives_the_same_texts_and_another_seed_gives_others() -> None:
    assert document_files(DOCUMENTS) == document_files(DOCUMENTS)
    assert document_files(DOCUMENTS) != document_files(DOCUMENTS.model_copy(update={"seed": 1}))


def test_no_text_is_in_two_splits() -> None:
    texts = [row["text"] for split in PASSAGES for row in lines(split)]
    assert len(texts) == len(set(texts)) == 36
    starts = ("On ", "From: ", "def ")
    assert [next((s for s in starts if text.startswith(s)), "dialogue") for text in texts[:4]] == [*starts, "dialogue"]


def test_a_larger_split_begins_with_the_smaller_one() -> None:
    assert lines("retain", DOCUMENTS.model_copy(update={"retain": 40}))[:24] == lines("retain")


def test_questions_and_dialogues_ask_what_the_texts_say() -> None:
    facts = {(town, value.lower()) for _, town, value in World(DOCUMENTS.seed).facts}
    for row in lines("choice"):
        assert len(set(row["choices"])) == OPTIONS
        town = next(town for town, _ in facts if town in row["question"])
        answer = row["choices"][row["answer"]].strip(" .").lower()
        assert (town, answer) in facts
        assert any(row["question"] + row["choices"][row["answer"]] in text["text"] for text in lines("retain"))
    for row in lines("dialogue"):
        assert any(town in row["context"] and town in row["response"] for town, _ in facts)
        assert row["context"].count("\n") == 1
        assert "\n" not in row["response"]


def test_every_document_has_its_tokens() -> None:
    config = TdecBenchmark(sequences=3, documents=DOCUMENTS)
    passages = load_passages(config)
    tokenizer = as_pretrained(train_tokenizer([row.answer for row in training_rows(passages, True)], 1024))
    sequences = tokenised(passages, Template(tokenizer), len(tokenizer))
    assert sequences.forget.shape == (3, 200)
    assert sequences.retain.shape == (25, 200)
    assert lines("forget")[0]["text"].startswith(tokenizer.decode(sequences.forget[0]))


def test_memorised_rows_that_are_not_forgotten_are_retained() -> None:
    passages = load_passages(TdecBenchmark(sequences=3, repeats=2, documents=DOCUMENTS))
    assert passages.retain[-1] == passages.memorised[3]
    assert len(passages.retain) == 25
    full, kept = (training_rows(passages, include_forget=known) for known in (True, False))
    assert len(full) == 24 + 2 * 4
    assert len(kept) == 24 + 2 * 1
    assert {row.answer for row in full} - {row.answer for row in kept} == set(passages.forget)
    assert {row.question for row in full} == {""}


def test_the_digest_covers_the_measure_but_not_the_place() -> None:
    digests = {
        load_passages(TdecBenchmark(documents=DOCUMENTS, **change)).digest
        for change in (
            {"sequences": 3},
            {"sequences": 3, "ngram": 9},
            {"sequences": 2},
            {"sequences": 3, "until_forgotten": False},
        )
    }
    assert len(digests) == 4
    config = TdecBenchmark(sequences=3, documents=DOCUMENTS)
    brought = config.model_copy(update={"source": str(embedded_documents(config))})
    assert load_passages(brought).digest == load_passages(config).digest


def write(folder: Path, **changes: list[Any]) -> TdecBenchmark:
    """A benchmark of token ids, the same in all parts, with some files replaced."""
    rows: dict[str, list[Any]] = {split: [{"input_ids": [*range(LENGTH)]}, {"text": "a b c"}] for split in PASSAGES}
    rows["dialogue"] = [{"context": "A: Hello!\nB:", "response": " Hello."}]
    rows["choice"] = [{"question": "Rain is", "choices": [" wet.", " dry."], "answer": 0}]
    for name, found in {**rows, **changes}.items():
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in found)
        (folder / f"{name}.jsonl").write_text(text)
    return TdecBenchmark(source=str(folder), sequences=1, length=LENGTH, ngram=3, allow_overlap=True)


def test_ids_and_texts_that_a_user_brings(tmp_path: Path) -> None:
    config = write(tmp_path)
    passages = load_passages(config)
    assert passages.forget == (tuple(range(LENGTH)),)
    assert passages.retain[1:] == ("a b c", "a b c")
    assert passages.choice[0].choices[passages.choice[0].answer] == " wet."
    for name in ("dialogue", "choice"):
        (tmp_path / f"{name}.jsonl").unlink()
    without = load_passages(config)
    assert without.dialogue == without.choice == ()


IDS = [*range(LENGTH)]
BAD = {
    "forget.jsonl, row 2: input_ids has 7 token ids, exactly 8 are needed": {
        "forget": [{"input_ids": IDS}, {"input_ids": IDS[:-1]}]
    },
    "retain.jsonl, row 1: input_ids must be a list of whole numbers": {"retain": [{"input_ids": [0.5] * LENGTH}]},
    "unseen.jsonl, row 1: input_ids must be a list of whole numbers": {"unseen": [{"input_ids": [True] * LENGTH}]},
    "unseen.jsonl, row 1: has no text nor input_ids": {"unseen": [{"ids": IDS}]},
    "retain.jsonl, row 1: text must be text that is not empty": {"retain": [{"text": "  "}]},
    "forget.jsonl, line 1: not JSON": {"forget": ["{"]},
    "forget.jsonl, row 2: not a JSON object": {"forget": [{"input_ids": IDS}, "[1]"]},
    "validation.jsonl has no rows": {"validation": []},
    "dialogue.jsonl, row 1: has no response": {"dialogue": [{"context": "A:"}]},
    "choice.jsonl, row 1: choices must be a list": {"choice": [{"question": "Q", "choices": ["a"], "answer": 0}]},
    "choice.jsonl, row 1: answer must be the place": {
        "choice": [{"question": "Q", "choices": ["a", "b"], "answer": 2}]
    },
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_row_is_named(tmp_path: Path, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_passages(write(tmp_path, **BAD[message]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    config = write(tmp_path)
    (tmp_path / "unseen.jsonl").unlink()
    with pytest.raises(UserError, match=r"there is no .*unseen.jsonl: a benchmark needs forget, retain, unseen"):
        load_passages(config)
    with pytest.raises(UserError, match=r"benchmark.source 'nowhere': no such folder"):
        load_passages(config.model_copy(update={"source": "nowhere"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"unseen": (tuple([3] * 7 + [300]),)}, "unseen.jsonl, row 1: token id 300 is not in .* of 300"),
        (lambda p: {"retain": (p.forget[0], (-1,) * LENGTH)}, "retain.jsonl, row 2: token id -1"),
        (lambda p: {"validation": ("a b",)}, "validation.jsonl, row 1: the text has 3 tokens, 8 are needed"),
    ],
)
def test_short_texts_and_foreign_token_ids_are_refused(
    tmp_path: Path, change: Callable[[Passages], dict], message: str
) -> None:
    passages = load_passages(write(tmp_path))
    tokenizer = as_pretrained(train_tokenizer([], 262))
    longer = replace(passages, **{split: ("a long text",) for split in PASSAGES if split != "forget"})
    assert np.array_equal(tokenised(longer, Template(tokenizer), 300).forget, [IDS])
    with pytest.raises(UserError, match=message):
        tokenised(replace(longer, **change(longer)), Template(tokenizer), 300)


def test_an_embedded_model_cannot_be_trained_on_token_ids(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an embedded model has its own tokenizer"):
        training_rows(load_passages(write(tmp_path)), include_forget=True)
