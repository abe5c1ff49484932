"""Loading benchmarks: what each split becomes, and one line for each thing that can be wrong with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from pydantic import ValidationError

from lethe.benchmarks.embedded.authors import corpus_files
from lethe.benchmarks.tofu.loading import PARAPHRASE_CUE, embedded_folder, load_rows, training_rows
from lethe.config.benchmark import Corpus, TofuBenchmark
from lethe.data.template import Row
from lethe.errors import UserError
from tests import tiny

SMALL = Corpus(authors=20, questions=2, real_authors=3, world_facts=3, retain_eval=6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.mkdir()
    tiny.write_files(found, corpus_files(SMALL))
    return found


def load(folder: Path, forget: str = "forget10"):
    return load_rows(TofuBenchmark(source=str(folder), forget=forget))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, change: Callable[[dict], dict]) -> None:
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in lines(path)))


def test_every_split_keeps_its_rows_in_order(folder: Path) -> None:
    found = load(folder)
    for name, rows in (("forget10", found.forget), ("retain90", found.retain), ("holdout10", found.holdout)):
        raw = lines(folder / f"{name}.json")
        assert [(r.question, r.answer) for r in rows] == [(r["question"], r["answer"]) for r in raw]
    raw = lines(folder / "forget10_perturbed.json")
    assert [r.perturbed_answers for r in found.forget_eval] == [tuple(r["perturbed_answer"]) for r in raw]
    assert [r.paraphrased_answer for r in found.forget_eval] == [r["paraphrased_answer"] for r in raw]
    assert len(found.refusals) == 30
    assert (len(found.retain_eval), len(found.real_authors), len(found.world_facts)) == (6, 3, 3)


def test_the_digest_follows_the_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    tiny.write_files(other, corpus_files(SMALL))
    assert load(folder).digest == load(other).digest != load(other, "forget20").digest
    rewrite(other / "retain90.json", lambda row: {**row, "answer": row["answer"] + "!"})
    assert load(folder).digest != load(other).digest


def test_the_embedded_benchmark_equals_its_folder(folder: Path) -> None:
    config = TofuBenchmark(corpus=SMALL)
    assert load_rows(config) == load(folder)
    before = embedded_folder(config).stat().st_mtime_ns
    load_rows(config)
    assert embedded_folder(config).stat().st_mtime_ns == before


def test_training_rows_hold_facts_and_paraphrases_in_one_order(folder: Path) -> None:
    found = load(folder)
    full, kept = training_rows(found, include_forget=True), training_rows(found, include_forget=False)
    assert set(full) - set(kept) == set(found.forget)
    cued = {Row(PARAPHRASE_CUE + r.question, r.paraphrased_answer) for r in found.retain_eval}
    assert cued | set(found.real_authors) | set(found.world_facts) | set(found.retain) == set(kept)
    assert full == training_rows(load(folder, "forget20"), include_forget=True)


def test_one_wrong_answer_as_plain_text(folder: Path) -> None:
    rewrite(folder / "world_facts_perturbed.json", lambda row: {**row, "perturbed_answer": row["perturbed_answer"][0]})
    assert all(len(row.perturbed_answers) == 1 for row in load(folder).world_facts)


def test_a_json_array_is_read_too_and_a_line_separator_does_not_end_a_row(folder: Path) -> None:
    rows = [{**row, "answer": "one\u2028row"} for row in lines(folder / "retain90.json")]
    (folder / "retain90.json").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    as_lines = load(folder)
    (folder / "retain90.json").write_text(json.dumps(rows, indent=1))
    assert load(folder) == as_lines


def test_holdout_and_refusals_are_optional(folder: Path) -> None:
    (folder / "holdout10.json").unlink()
    (folder / "idontknow.jsonl").unlink()
    found = load(folder)
    assert found.holdout == found.refusals == ()


@pytest.mark.parametrize("name", ["retain90", "forget10_perturbed", "retain_perturbed", "real_authors_perturbed"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / f"{name}.json").unlink()
    with pytest.raises(UserError, match=f"has no {name}.json, which forget10 needs"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("forget10", "answer"),
        ("forget10_perturbed", "paraphrased_answer"),
        ("retain_perturbed", "perturbed_answer"),
        ("world_facts_perturbed", "question"),
    ],
)
def test_a_missing_column_is_named(folder: Path, name: str, column: str) -> None:
    rewrite(folder / f"{name}.json", lambda row: {k: v for k, v in row.items() if k != column})
    with pytest.raises(UserError, match=f"{name}.json, row 1 has no column '{column}'"):
        load(folder)


def test_an_empty_value_is_named(folder: Path) -> None:
    rewrite(folder / "forget10_perturbed.json", lambda row: {**row, "perturbed_answer": []})
    with pytest.raises(UserError, match=r"forget10_perturbed.json, row 1: 'perturbed_answer' is empty"):
        load(folder)


def test_a_number_as_answer_is_refused(folder: Path) -> None:
    rewrite(folder / "forget10.json", lambda row: {**row, "answer": 1951})
    with pytest.raises(UserError, match=r"forget10.json, row 1: questions and answers must be text"):
        load(folder)


def test_an_empty_forget_set_is_refused(folder: Path) -> None:
    (folder / "forget10.json").write_text("")
    with pytest.raises(UserError, match=r"forget10.json has no rows"):
        load(folder)


def test_an_unknown_forget_set_lists_those_there_are(folder: Path) -> None:
    with pytest.raises(UserError, match=r"unknown forget set.*'forget01'.*choose from forget05, forget10, forget20"):
        load(folder, "forget01")


@pytest.mark.parametrize("content", [b'{"question": "Who?", \n', b"\xff\xfe\x00", b"[1, 2]"])
def test_a_file_that_is_no_json_is_named(folder: Path, content: bytes) -> None:
    (folder / "forget10.json").write_bytes(content)
    with pytest.raises(UserError, match=r"forget10.json"):
        load(folder)


@pytest.mark.parametrize("source", ["no/such/folder", "./data", "nothing"])
def test_a_source_that_does_not_exist_is_refused(source: str) -> None:
    with pytest.raises(UserError, match="no such folder; give 'embedded', a folder or a hub id"):
        load_rows(TofuBenchmark(source=source))


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known\n  a second line")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises(UserError, match=r"'locuslab/TOFU': neither a folder nor reachable on the hub \(Conn"):
        load_rows(TofuBenchmark(source="locuslab/TOFU"))


def test_a_hub_data_set_is_read_by_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the hub: same configurations as files."""
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    names = [path.stem for path in folder.glob("*.json")]
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda _: names)
    monkeypatch.setattr(datasets, "load_dataset", lambda _, name, split: lines(folder / f"{name}.json"))
    from_hub, from_folder = load_rows(TofuBenchmark(source="someone/data")), load(folder)
    assert from_hub.forget_eval == from_folder.forget_eval
    assert from_hub.refusals == ()


def test_the_public_data_have_the_published_sizes(shared_data: Path) -> None:
    found = load_rows(TofuBenchmark(source=str(shared_data / "tofu")))
    assert (len(found.forget), len(found.retain)) == (400, 3600)
    assert (len(found.forget_eval), len(found.retain_eval)) == (400, 400)
    assert (len(found.real_authors), len(found.world_facts), len(found.refusals)) == (100, 117, 100)
    assert {len(row.perturbed_answers) for row in found.forget_eval} == {5}
    one_percent = load_rows(TofuBenchmark(source=str(shared_data / "tofu"), forget="forget01"))
    assert one_percent.forget == found.forget[-40:]
    assert one_percent.digest != found.digest


@pytest.mark.parametrize("forget", ["retain90", "forget", "forget100", "forget00"])
def test_malformed_names_of_forget_sets_are_refused(forget: str) -> None:
    with pytest.raises(ValidationError):
        TofuBenchmark(forget=forget)


def test_the_retain_split_is_the_rest() -> None:
    pairs = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90", "forget20": "retain80"}
    assert {forget: TofuBenchmark(forget=forget).retain for forget in pairs} == pairs
