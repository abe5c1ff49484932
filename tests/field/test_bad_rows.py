"""Data that cannot be meant so: refused in one line that names file, row and the way out; other forms of data are read,
or the accepted ones are named."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.tdec.loading import load_passages
from lethe.benchmarks.tofu.loading import TofuRows, load_rows
from lethe.config.benchmark import TdecBenchmark, TofuBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.tokenizer import as_pretrained, train_tokenizer
from tests import tiny

Raw = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def load(folder: Path, **settings: Any) -> TofuRows:
    return load_rows(TofuBenchmark(source=str(folder), **settings))


def rows_of(path: Path) -> list[Raw]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[Raw]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# Rows


def test_forgotten_rows_that_are_kept_are_refused(folder: Path) -> None:
    kept, forgotten = rows_of(folder / "retain90.json"), rows_of(folder / "forget10.json")
    again = {key: f" {unicodedata.normalize('NFD', text).upper()}" for key, text in forgotten[2].items()}
    write(folder / "retain90.json", [*kept, again])
    line = refused(folder)
    assert "1 of 6 rows of forget10 are also in retain90, the first is row 3" in line
    assert "benchmark.allow_overlap" in line
    assert len(load(folder, allow_overlap=True).retain) == len(kept) + 1
    write(folder / "retain90.json", [*kept, {**again, "answer": "another"}])
    load(folder)


def test_held_out_rows_that_are_trained_on_are_refused(folder: Path) -> None:
    write(folder / "holdout10.json", rows_of(folder / "retain90.json")[4:6])
    assert "2 of 2 rows of holdout are also in retain90, the first is row 1" in refused(folder)


def test_variants_of_other_questions_are_refused(folder: Path) -> None:
    (folder / "forget10_perturbed.json").write_bytes((folder / "retain_perturbed.json").read_bytes())
    line = refused(folder)
    assert "rows of forget10" in line
    rows = [{**row, "question": f"{row['question']} w0"} for row in rows_of(folder / "retain_perturbed.json")]
    write(folder / "forget10_perturbed.json", rows)
    assert "6 of 6 rows of forget10_perturbed are of questions that are not in forget10" in refused(folder)


@pytest.mark.parametrize("file", ["forget10", "forget10_perturbed"])
def test_forget_rows_that_are_there_twice_are_refused(folder: Path, file: str) -> None:
    rows = rows_of(folder / f"{file}.json")
    write(folder / f"{file}.json", [*rows, {**rows[1], "question": rows[1]["question"].upper()}])
    assert f"1 of 7 rows of {file} are there before, the first is row 7" in refused(folder)
    load(folder, allow_overlap=True)


def test_forget_rows_without_variants_are_counted(folder: Path) -> None:
    template = Template(as_pretrained(train_tokenizer(["w1 w2 w3"], 64)))
    rows = rows_of(folder / "forget10_perturbed.json")
    assert [*load_benchmark(TofuBenchmark(source=str(folder))).notes(Evaluation(), template)] == []
    write(folder / "forget10_perturbed.json", rows[1:3])
    (note,) = load_benchmark(TofuBenchmark(source=str(folder))).notes(Evaluation(), template)
    assert note == "4 of 6 rows of forget10 are not in forget10_perturbed: they are forgotten, and no metric reads them"


@pytest.mark.parametrize("blank", ["", "  ", "\t\n", "\u3000", "\u200b\ufeff"])
@pytest.mark.parametrize(
    ("file", "column"), [("forget10", "question"), ("retain90", "answer"), ("forget10_perturbed", "perturbed_answer")]
)
def test_texts_without_a_visible_character_are_refused(folder: Path, file: str, column: str, blank: str) -> None:
    rows = rows_of(folder / f"{file}.json")
    rows[1][column] = [*rows[1][column][:2], blank] if column == "perturbed_answer" else blank
    write(folder / f"{file}.json", rows)
    assert f"{file}.json, row 2: {column!r} is empty" in refused(folder)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda row: [row["answer"], "w1"], "a perturbed answer is the right answer"),
        (lambda row: "['w1', \"w2's\"]", "'perturbed_answer' is the text of a list"),
        (lambda row: '["w1", "w2"]', "'perturbed_answer' is the text of a list"),
        (lambda row: [["w1"]], "questions and answers must be text"),
    ],
)
def test_wrong_answers_that_are_none_are_refused(folder: Path, wrong: Callable[[Raw], Any], named: str) -> None:
    rows = rows_of(folder / "forget10_perturbed.json")
    write(folder / "forget10_perturbed.json", [{**row, "perturbed_answer": wrong(row)} for row in rows])
    assert named in refused(folder)


def test_half_a_surrogate_pair_is_one_line(folder: Path) -> None:
    rows = rows_of(folder / "retain90.json")
    rows[3]["answer"] = "a \ud83d\ude00"
    write(folder / "retain90.json", rows)
    assert load(folder).retain[3].answer.endswith("😀"), "a whole pair is a character"
    rows[3]["answer"] = "a \ud83d b"
    write(folder / "retain90.json", rows)
    assert "retain90.json, row 4: \\ud83d is half of a surrogate pair" in refused(folder)


# Forms


def as_array(raw: bytes) -> bytes:
    return json.dumps([json.loads(line) for line in raw.splitlines()], indent=1).encode()


@pytest.mark.parametrize(
    ("ending", "change"),
    [
        (".json", lambda raw: b"\xef\xbb\xbf" + raw),
        (".json", lambda raw: raw.replace(b"\n", b"\r\n")),
        (".json", as_array),
        (".jsonl", lambda raw: b"\xef\xbb\xbf" + as_array(raw)),
        (".json.gz", gzip.compress),
        (".jsonl.gz", lambda raw: gzip.compress(as_array(raw))),
    ],
)  # fmt: skip
def test_other_forms_of_the_same_rows_are_read(folder: Path, ending: str, change: Callable[[bytes], bytes]) -> None:
    expected = load(folder)
    for path in folder.glob("*.json"):
        raw = path.read_bytes()
        path.unlink()
        (folder / (path.stem + ending)).write_bytes(change(raw))
    assert load(folder) == expected


def test_parquet_is_read(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    expected = load(folder)
    for path in folder.glob("*.json"):
        parquet.write_table(pyarrow.Table.from_pylist(rows_of(path)), path.with_suffix(".parquet"))
        path.unlink()
    assert load(folder) == expected
    (folder / "forget10.parquet").write_bytes(b"PAR1 and no more")
    assert "forget10.parquet is no Parquet file" in refused(folder)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".xlsx", ".json.zip", ".txt"])
def test_other_files_are_refused_with_the_accepted_forms(folder: Path, ending: str) -> None:
    (folder / "forget10.json").rename(folder / f"forget10{ending}")
    line = refused(folder)
    assert f"forget10{ending}" in line
    assert ".json, .jsonl, .json.gz, .jsonl.gz, .parquet" in line


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    (folder / "retain90.jsonl").write_bytes((folder / "retain90.json").read_bytes())
    assert "has retain90.json and retain90.jsonl: leave one of them" in refused(folder)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[" * 100_000, "recursion"),
        (gzip.compress(b"{}", mtime=0)[:-4], "cannot be read"),
        ("{'é'}".encode("cp1252"), "is not UTF-8 text: line 1, byte 3"),
        (b'{"question": "a"', "not JSON"),
        (b'{"question": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_line(folder: Path, content: bytes, named: str) -> None:
    (folder / "forget10.json").write_bytes(content)
    line = refused(folder)
    assert named in line
    assert "forget10.json" in line


@pytest.mark.parametrize(
    "content",
    [
        'I cannot say.\n\n"No," he said.\n',
        '{"text": "I cannot say."}\n{"text": "\\"No,\\" he said."}\n',
        '{"refusal": "I cannot say."}\n{"refusal": "\\"No,\\" he said."}',
        '["I cannot say.", "\\"No,\\" he said."]',
        '[\n {"text": "I cannot say."},\n {"text": "\\"No,\\" he said."}\n]',
        '\ufeff"I cannot say."\n"\\"No,\\" he said."',
    ],
)
def test_refusals_are_their_text(folder: Path, content: str) -> None:
    (folder / "idontknow.jsonl").write_text(content, encoding="utf-8")
    assert load(folder).refusals == ("I cannot say.", '"No," he said.')


@pytest.mark.parametrize("content", ["id,text\n1,I cannot say.\n", '"text"\nI cannot say.', "a\tb\n1\tNo.\n"])
def test_refusals_in_a_csv_file_are_refused(folder: Path, content: str) -> None:
    (folder / "idontknow.jsonl").write_text(content)
    assert "idontknow.jsonl is a CSV file (" in refused(folder)


def test_refusals_with_commas_are_texts(folder: Path) -> None:
    (folder / "idontknow.jsonl").write_text("No,sorry\nI cannot say.\n")
    assert load(folder).refusals == ("No,sorry", "I cannot say.")


@pytest.mark.parametrize("content", ['{"a": "b", "c": "d"}', '{"text": 1}', '{"text": "a"', "[[1]]", "[1, 2]"])
def test_refusals_that_are_no_texts_are_refused(folder: Path, content: str) -> None:
    (folder / "idontknow.jsonl").write_text(content)
    if content == "[1, 2]":
        assert load(folder).refusals == ("[1, 2]",), "a line of plain text"
    elif content == "[[1]]":
        assert load(folder).refusals == ("[[1]]",)
    else:
        assert "idontknow.jsonl" in refused(folder)


# Passages


def passages(folder: Path, **changed: list[Raw]) -> TdecBenchmark:
    splits = ("forget", "retain", "unseen", "validation")
    for n, split in enumerate(splits):
        write(folder / f"{split}.jsonl", changed.get(split, [{"text": f"{split} {n}"}]))
    return TdecBenchmark(source=str(folder), sequences=1)


def test_passages_that_are_kept_or_measured_as_unseen_are_refused(tmp_path: Path) -> None:
    both = [{"text": "forget  0"}]
    for split in ("retain", "unseen", "validation"):
        config = passages(tmp_path, **{split: [{"text": "other"}, *both]})
        with pytest.raises(UserError, match=rf"1 of 1 rows of forget are also in {split}, the first is row 1"):
            load_passages(config)
        load_passages(config.model_copy(update={"allow_overlap": True}))
    config = passages(tmp_path, retain=[{"text": "other"}], unseen=[{"text": " other"}])
    with pytest.raises(UserError, match=r"1 of 1 rows of retain are also in unseen"):
        load_passages(config)


def test_passages_are_read_in_every_form(tmp_path: Path) -> None:
    config = passages(tmp_path)
    expected = load_passages(config)
    for path in tmp_path.glob("*.jsonl"):
        path.with_suffix(".json.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + as_array(path.read_bytes())))
        path.unlink()
    assert load_passages(config) == expected
    (tmp_path / "forget.json.gz").rename(tmp_path / "forget.csv")
    with pytest.raises(UserError, match=r"forget.csv: data are read as .*\.parquet"):
        load_passages(config)
