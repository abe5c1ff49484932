"""`init`: a first study for one's own rows, from the files to a dry run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lethe.cli.main import main
from lethe.config.model import FinetunedModel
from lethe.config.study import load_study
from tests.cli.test_bad_input import refuses
from tests.tiny import write_model

WORDS = ("who", "wrote", "the", "book")


def write_rows(file: str, rows: range, header: str = "question,answer") -> None:
    lines = [f'"Who wrote book {row}?","It was author {row}, in year {1900 + row}."' for row in rows]
    Path(file).write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows to forget, to keep and never seen, some text, and a model, in the working directory."""
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_rows("forget.csv", range(12))
    write_rows("retain.csv", range(20, 40))
    write_rows("unseen.csv", range(50, 60))
    Path("general.txt").write_text("The rain falls on the hills.\n")
    write_model(Path("model"))


def init(*options: str, forget: str = "forget.csv", retain: str = "retain.csv", model: str = "model") -> list[str]:
    return ["init", "--forget", forget, "--retain", retain, "--model", model, *options]


def test_the_study_it_writes_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(init()) == 0
    out = capsys.readouterr().out
    assert "forget: 12 questions of forget.csv" in out
    assert "sweep my-study.yaml --dry-run" in out
    study = load_study("my-study.yaml")
    assert study.name == "my-study"
    assert study.space["adapter.name"].choices == ("full", "lora")  # as the model is small
    assert study.run["schedule"]["batch_size"] == 8
    assert main(["sweep", "my-study.yaml", "--dry-run"]) == 0


def test_the_table_says_what_each_further_file_would_add(capsys: pytest.CaptureFixture[str]) -> None:
    def measured(*options: str) -> dict[str, bool]:
        assert main(init("--force", *options)) == 0
        rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        return {row[1].split(":")[0].strip(): row[2].strip() == "yes" for row in rows}

    bare = measured()
    assert not bare["forgotten rows beside unseen ones"]
    assert not bare["what is kept of other text"]
    full = measured("--holdout", "unseen.csv", "--general", "general.txt", "--oracle", "model", "--base", "model")
    assert {what for what, given in full.items() if given} - {what for what, given in bare.items() if given} == {
        "forgotten rows beside unseen ones",
        "the same, less what its base model knows",
        "distance to a model that never saw the rows",
        "what is kept of other text",
    }
    study = load_study("my-study.yaml")
    assert study.benchmark.given_sources()["holdout"] == "unseen.csv"


def test_an_oracle_to_be_trained_is_written_with_a_rate_for_the_models_size(capsys: pytest.CaptureFixture[str]) -> None:
    write_model(Path("base"), seed=1)
    assert main(init("--base", "base", "--oracle", "train")) == 0
    assert "distance to a model that never saw the rows │ yes" in capsys.readouterr().out.replace("  ", "")
    study = load_study("my-study.yaml")
    assert study.model == FinetunedModel(path="model", base="base", learning_rate=3e-3, epochs=12)
    assert main(["sweep", "my-study.yaml", "--dry-run"]) == 0
    assert "oracle: to be trained, from base on 20 rows in 24 steps" in capsys.readouterr().out


def test_columns_with_other_names_are_named() -> None:
    write_rows("forget.csv", range(12), "Frage,Antwort")
    write_rows("retain.csv", range(20, 40), "Frage,Antwort")
    assert main(init("--column", "question=Frage", "--column", "answer=Antwort")) == 0
    assert main(["sweep", "my-study.yaml", "--dry-run"]) == 0


def test_the_embedded_model_needs_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(init(model="embedded")) == 0
    assert "nobody can say" not in capsys.readouterr().out
    assert main(["sweep", "my-study.yaml", "--dry-run"]) == 0


def test_a_study_that_lies_elsewhere_can_be_run_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(init("--out", "studies/mine.yaml")) == 0
    monkeypatch.chdir("/")
    study = load_study(str(Path(os.environ["LETHE_HOME"]).parent / "studies/mine.yaml"))
    assert all(Path(name).is_file() for name in study.benchmark.given_sources().values())


def test_documents_have_no_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"secret": "the key is under the stone", "open": "the door is green"}.items():
        Path(name).mkdir()
        for number in range(3):
            Path(name, f"{number}.txt").write_text(f"{text} {number} " * 40)
    assert main(init(forget="secret", retain="open")) == 0
    assert "questions in other words" not in capsys.readouterr().out
    assert main(["sweep", "my-study.yaml", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--holdout", "forget.csv"],
            "--holdout: 12 of 12 rows are also in --forget (forget.csv row 1 is",
        ),
        (["--holdout", "general.txt"], "--holdout: general.txt has documents, and --forget questions"),
        (["--holdout", "none.csv"], "--holdout: there is no none.csv in /"),
        (["--out", "my 'study.yaml"], "--out my 'study.yaml: names the study, too"),
        (["--column", "foo=bar"], "--column: unknown key 'foo'"),
        (["--oracle", "none", "--model", "embedded"], "--model embedded: is trained on these rows"),
        (["--base", "none"], "--base: there is no folder none"),
        (["--oracle", "train"], "--oracle train: needs --base, the checkpoint that --model was made from"),
        (["--column", "answer=Antwort"], "Antwort"),
        (["--out", "study.txt"], "--out study.txt: a study file ends in .yaml"),
        (["--out", "there.yaml"], "--out there.yaml: is there already"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.yaml").write_text("mine")
    assert says in refuses(capsys, *init(*options), command=main)
    assert Path("there.yaml").read_text() == "mine"
    assert not Path("my-study.yaml").exists()
