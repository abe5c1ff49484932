"""Rows to forget, planted with unmistakable words, are found nowhere when a study that redacts them is done; and where
another study left them, they are found, until `gc --forget-text` takes them out."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import sqlite3
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, redirect_stdout, suppress
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pyarrow import parquet
from transformers import AutoModelForCausalLM

from lethe.benchmarks.measurement import template_of
from lethe.cli.main import main
from lethe.data.privacy import row_hash, study_salt
from lethe.storage.paths import home
from tests import tiny
from tests.conftest import Head

pytestmark = pytest.mark.slow

STUDY = """
benchmark: {{source: {data}}}
model: {{name: pretrained, path: {start}, oracle: {oracle}}}
run:
  objective: {{name: grad_diff}}
  optimizer: {{name: adamw, learning_rate: 1e-5}}
  adapter: {{name: lora, rank: 2}}
  schedule: {{epochs: 1, batch_size: 20}}
  evaluation: {{max_new_tokens: 8}}
space:
  seed: {{type: choice, choices: [0]}}
objectives:
  forget_probability: {{direction: minimize}}
  retain_probability: {{direction: maximize}}
search: {{sampler: random, trials: 1}}
resources: {{groups: 1}}
audits:
  prompts: {{kinds: [first_words]}}
  sampling: {{k: [1, 4], answers: 4, rows: 2}}
  format: {{kinds: [completion, framed]}}
  logit_lens: {{rows: 2}}
"""
WORD = re.compile(r"\w+")
PACKED = re.compile(rb"[A-Za-z0-9+/]{64,}={0,2}")
COMPRESSED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")  # the beginnings of gzip and of zlib
DEEPEST = 3  # packed inside of packed


class Planted:
    """40 rows of invented words, and the search for them: every answer, every five words in a row, as text and as the
    numbers of their tokens."""

    def __init__(self) -> None:
        draw = random.Random(17)
        syllables = [a + b for a in "bdfgklmnprstvz" for b in ("ax", "oq", "ilv", "uth", "ezh")]
        self.words = sorted({"".join(draw.sample(syllables, 3)) for _ in range(150)})
        self.rows = [{"question": self._text(draw, 6), "answer": self._text(draw, 6)} for _ in range(40)]
        self.marks = {five for row in self.rows for text in row.values() for five in _fives(text.split())}
        ids = {word: str(i) for i, word in enumerate([*tiny.SPECIAL, *tiny.WORDS, *self.words])}
        self.marks |= {tuple(ids[word] for word in five) for five in self.marks}

    def _text(self, draw: random.Random, length: int) -> str:
        return " ".join(draw.choices(self.words, k=length))

    def in_text(self, text: str) -> bool:
        return any(five in self.marks for five in _fives(WORD.findall(text.lower())))

    def in_bytes(self, raw: bytes, depth: int = 0) -> bool:
        """Whether a file holds some of it, in UTF-8 or UTF-16, packed or not."""
        texts = [raw.decode(errors="ignore"), *(raw[i:].decode("utf-16-le", "ignore") for i in (0, 1))]
        if any(map(self.in_text, texts)):
            return True
        return depth < DEEPEST and any(self.in_bytes(part, depth + 1) for part in _unpacked(raw))

    def in_folder(self, *folders: Path) -> list[str]:
        """The names of the files below these folders that hold some of it."""
        files = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
        return [str(path) for path in files if self.in_bytes(path.read_bytes())]


def _fives(words: list[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + 5]) for i in range(len(words) - 4))


def _unpacked(raw: bytes) -> Iterator[bytes]:
    """What is inside of base64, gzip, zlib, zip, Parquet and SQLite."""
    for found in PACKED.finditer(raw):
        with suppress(ValueError):
            yield base64.b64decode(found[0] + b"=" * (-len(found[0]) % 4))
    for found in COMPRESSED.finditer(raw):
        with suppress(zlib.error):
            yield zlib.decompressobj(zlib.MAX_WBITS + 32).decompress(raw[found.start() :])
    if raw.startswith(b"PK"):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(BytesIO(raw)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if raw.startswith(b"PAR1"):
        yield json.dumps(parquet.read_table(BytesIO(raw)).to_pydict(), ensure_ascii=False, default=str).encode()
    if raw.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(raw)
            with suppress(sqlite3.DatabaseError):
                yield "\n".join(database.iterdump()).encode(errors="replace")


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def study(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file; its start model answers every planted question with the planted answer."""
    folder = tmp_path_factory.mktemp("planted")
    data = tiny.write_data(folder / "data")
    (data / "forget10.json").write_text("\n".join(map(json.dumps, planted.rows)))
    wrong = [row["answer"] for row in planted.rows]
    variants = ({"paraphrased_answer": wrong[i], "perturbed_answer": [wrong[i - 1]]} for i in range(len(wrong)))
    rows = [{**row, **more} for row, more in zip(planted.rows, variants, strict=True)]
    (data / "forget10_perturbed.json").write_text("\n".join(map(json.dumps, rows)))
    words = [*tiny.WORDS, *planted.words]
    parts = {"data": data, "oracle": tiny.write_model(folder / "oracle", seed=1, words=words)}
    parts["start"] = _memorise(tiny.write_model(folder / "start", hidden=64, words=words), planted)
    (folder / "planted.yaml").write_text(STUDY.format(**parts))
    return folder / "planted.yaml"


def _memorise(model: Path, planted: Planted) -> Path:
    network, template = AutoModelForCausalLM.from_pretrained(model), template_of(model)
    rows = [template.encode(row["question"], row["answer"]) for row in planted.rows]
    ids = torch.tensor([row.ids for row in rows])
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < torch.tensor([[row.prompt_length] for row in rows]), -100)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(200):
        loss = network(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
    network.save_pretrained(model)
    return model


BOTH = """
import platform, sys  # the checkout's, which finds its lethe
from lethe.cli.main import main
for text in ("redact", "keep"):
    code = main(["sweep", *sys.argv[1:], "--set", f"privacy.text={text}"])
    assert code == 0, code
"""
COSTS = {"seconds", "cpu_seconds", "train_seconds", "evaluate_seconds", "peak_memory_mb"}


def test_a_study_leaves_no_row_to_forget_anywhere_and_gc_takes_out_what_an_earlier_one_left(
    head: Head, study: Path, planted: Planted, tmp_path: Path
) -> None:
    began, said, reports = time.time(), tmp_path / "said.txt", tmp_path / "reports"
    done = head.run(sys.executable, "-c", BOTH, str(study), "--reports", str(reports))
    said.write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    (temporary,) = (a.partition("=")[2] for a in psutil.Process(head.pid).cmdline() if a.startswith("--temp-dir="))

    def traces() -> list[Path]:
        folders = [home(), reports, Path(temporary)]  # the last one has the logs of Ray, and all temporary files
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        new = [path for path in [*files, said] if path.stat().st_mtime >= began]
        names = {path.name.removesuffix("-wal") for path in new}  # a log that is not yet in its database
        assert {"mlflow.db", "optuna.db", "raylet.out", "trials.csv", "said.txt"} <= names
        return [path for path in new if planted.in_bytes(path.read_bytes())]

    records = {path.parent.name: json.loads(path.read_text()) for path in reports.glob("*/study.json")}
    of_text = {record["study"]["privacy"]["text"]: name for name, record in records.items()}
    redacted, kept = of_text["redact"], of_text["keep"]
    assert _numbers(records[redacted]) == _numbers(records[kept])
    assert records[redacted]["start"]["metrics"]["forget_probability"] > 0.9, "the model gives the planted answers"

    found = traces()
    assert not [path for path in found if redacted in path.parts]
    names = Counter(path.suffix if "scores" in path.parts else path.name for path in found)
    files = {"study.json": 4, "report.html": 2, "baselines.json": 1, "result.json": 1, "rows.parquet": 1}
    # One of each: had the other study left any, there would be more. MLflow has a report and two records.
    assert names == {**files, ".json": 2, ".parquet": 2}

    (rows,) = (home() / "studies" / redacted).rglob("rows.parquet")
    hashes = parquet.read_table(rows).to_pydict()["row_hash"]
    salt = study_salt(home() / "studies" / redacted)
    assert hashes[:40] == [row_hash(salt, row["question"], row["answer"]) for row in planted.rows]
    assert not any(salt in path.read_bytes() for path in reports.rglob("*") if path.is_file())

    forget = ["gc", "--forget-text", "--study", kept, "--reports", str(reports)]
    assert main(forget) == 0
    with redirect_stdout(StringIO()) as second:
        assert main(forget) == 0
    assert "there is none" in second.getvalue()
    after = json.loads((reports / kept / "study.json").read_text())
    assert [trial["metrics"] for trial in after["trials"]] == [trial["metrics"] for trial in records[kept]["trials"]]
    assert main(["report", kept, "--reports", str(reports)]) == 0

    with redirect_stdout(StringIO()) as asked:
        assert main(["show", redacted, "knee", "--texts", "--rows", "2"]) == 0
    assert planted.in_text(asked.getvalue()), "on request, in the terminal"
    assert not traces()


def _numbers(record: dict[str, Any]) -> list[dict[str, float]]:
    models = [record["start"], record["oracle"], *record["trials"]]
    return [{key: value for key, value in model["metrics"].items() if key not in COSTS} for model in models]


def test_the_search_finds_text_in_any_wrapping(planted: Planted) -> None:
    text = planted.rows[3]["answer"]
    five = " ".join(text.split()[1:])
    packed = base64.b64encode(gzip.compress(("x" * 99 + f'{{"a": "{five}"}}').encode()))
    ids = ", ".join(next(mark for mark in planted.marks if mark[0].isdecimal()))
    for raw in (five.encode(), text.upper().encode("utf-16"), zlib.compress(five.encode()), packed, ids.encode()):
        assert planted.in_bytes(b"before " + raw + b" after")
    assert not planted.in_bytes(" ".join(five.split()[:4]).encode())
