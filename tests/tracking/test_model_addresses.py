"""Registered versions as `score` finds them: by alias, by number, and with the names that exist otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from lethe.config.benchmark import TofuBenchmark
from lethe.config.model import PretrainedModel
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.models.hashing import model_digest
from lethe.study.finetuning import prepare_study
from lethe.study.preparation import locate, prepare
from lethe.study.scored_models import find
from lethe.study.scoring import provenance_warnings
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests import tiny
from tests.tracking.studies import save_model, study, trial


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "0/model")
    return folder


@pytest.fixture
def store(models: Path, uri: str, report: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with the version 1 of lethe-tofu, its knee."""
    record = study(trial(0, pareto_rank=0, folder=str(models / "0")), aliases={"knee": 0}, start_folder=str(models))
    tracker = MlflowTracker(uri)
    tracker.begin(record)
    tracker.finish(record, report)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def test_a_version_is_found_by_alias_and_by_number(store: str, models: Path) -> None:
    found = [find(name) for name in ("models:/lethe-tofu@knee", "models:/lethe-tofu/1")]
    assert len({candidate.folder for candidate in found}) == 1
    assert found[0].digest == model_digest(models / "0/model"), "the files that the study saved"
    assert found[0].tags["lethe.data"] == "d" * 16
    assert found[0].template().prompt("who wrote")


def test_a_version_is_the_start_model_of_the_next_study(store: str, models: Path, tmp_path: Path) -> None:
    data = TofuBenchmark(source=str(tiny.write_data(tmp_path / "data")))
    model = PretrainedModel(path="models:/lethe-tofu@knee")
    locate(data, model)
    found = prepare(data, model)
    assert found.digests.model == model_digest(models / "0/model"), "the files that the study saved"
    assert (found.start / "config.json").is_file()


def test_a_version_is_looked_for_in_the_studys_own_store(
    store: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    given = [f"benchmark.source={tiny.write_data(tmp_path / 'data')}", f"tracking.uri={store}"]
    own = load_study("tofu", [*given, "model={name: pretrained, path: models:/lethe-tofu@knee}"])
    assert prepare_study(own).digests.model == model_digest(models / "0/model")
    with pytest.raises(UserError, match=r"there is no MLflow store at sqlite:.*other.db: set tracking.uri or"):
        prepare_study(load_study("tofu", [given[0], "model={name: pretrained, path: models:/lethe-tofu@knee}"]))


def test_a_version_of_another_study_gives_a_warning(store: str) -> None:
    model = find("models:/lethe-tofu@knee")
    assert list(provenance_warnings([model], "d" * 16, None)) == []
    (line,) = provenance_warnings([model], "e" * 16, None)
    assert "models:/lethe-tofu@knee" in line
    assert "other data" in line


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("models:/lethe-tofu@best", ["alias of lethe-tofu", "'best'", "knee"]),
        ("models:/lethe-tofu/7", ["version of lethe-tofu", "'7'", "1"]),
        ("models:/lethe-toufu@knee", ["registered model", "'lethe-toufu'", "lethe-tofu"]),
        ("models:/lethe-tofu", ["models:/name@alias"]),
    ],
)
def test_an_unknown_name_gets_the_choices(name: str, named: list[str], store: str) -> None:
    with pytest.raises(UserError) as refusal:
        find(name)
    assert all(word in str(refusal.value) for word in named), refusal.value


def test_a_version_without_its_files_is_refused(store: str) -> None:
    import shutil

    shutil.rmtree(find("models:/lethe-tofu@knee").folder.parent)
    with pytest.raises(UserError, match="version 1 of lethe-tofu has lost its files"):
        find("models:/lethe-tofu@knee")


def test_a_store_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot reach the MLflow store"):
        find("models:/lethe-tofu@knee")
