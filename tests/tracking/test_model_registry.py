"""The front's models as another team finds them: loaded by alias in a process that has no lethe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.config.study import load_study
from lethe.records import StudyRecord
from lethe.study.saved_adapters import with_saved_adapters
from lethe.tracking.mlflow_tracker import MlflowTracker
from lethe.tracking.model_registry import model_name
from tests.tracking.studies import save_adapter, save_model, study, trial

pytestmark = pytest.mark.slow

Look = Callable[[str], Any]
QUESTION = "<s> who wrote the book"
RUNS = {number: trial(number).run for number in range(4)}

STRANGER = """
import importlib.util, json, sys
sys.modules["lethe"] = None  # where lethe is installed, it cannot be imported all the same
import mlflow, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
uri, question = sys.argv[1:]
mlflow.set_tracking_uri(uri)
found = {}
for alias in ("knee", "best-forget"):
    folder = mlflow.artifacts.download_artifacts(f"models:/lethe-tofu@{alias}") + "/model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(question, return_tensors="pt")).logits
    pipeline = mlflow.transformers.load_model(f"models:/lethe-tofu@{alias}")
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), pipeline.model.parameters(), strict=True))
    text = pipeline(question, max_new_tokens=3, do_sample=False)[0]["generated_text"]
    found[alias] = {"logits": logits[0, -1].tolist(), "same": same, "text": text}
assert not any(name.startswith("lethe.") for name in sys.modules)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model, trial 0 with a whole model, trial 1 with an adapter; trial 2 saved nothing."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "start")
    save_model(folder / "0/model")
    save_adapter(folder / "start", folder / "1/model")
    return folder


def front(models: Path, **changes: Any) -> StudyRecord:
    trials = (trial(n, 0.1 * (n + 1), 0.1 * (n + 4), pareto_rank=0, folder=str(models / str(n))) for n in range(2))
    aliases = {"knee": 1, "best-forget": 0}
    values = {"start_folder": str(models / "start"), "aliases": aliases} | changes
    return study(*trials, trial(3, 0.8, 0.3, pareto_rank=1), **values)


def finish(uri: str, record: StudyRecord, report: Path, **settings: Any) -> None:
    tracker = MlflowTracker(uri, **settings)
    tracker.begin(record)
    tracker.finish(record, report)


def versions(look: Look, uri: str) -> dict[str, Any]:
    found = look(uri).search_model_versions(f"name = '{model_name('tofu')}'")
    by_run = {version.tags["lethe.run"]: version for version in found}
    assert len(by_run) == len(found)
    return by_run


def expected_logits(models: Path) -> dict[str, list[float]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(models / "start")(QUESTION, return_tensors="pt")
    whole = AutoModelForCausalLM.from_pretrained(models / "0/model")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(models / "start"), models / "1/model")
    with torch.no_grad():
        answers = {"best-forget": whole(**ids).logits, "knee": adapted(**ids).logits}
    return {alias: logits[0, -1].tolist() for alias, logits in answers.items()}


def test_front_loads_without_lethe(
    models: Path, uri: str, report: Path, look: Look, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(uri, front(models), report)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert {path.name for path in (models / "1").iterdir()} == {"model"}

    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-I", "-c", STRANGER, uri, QUESTION]
    process = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120)
    assert process.returncode == 0, process.stderr
    found, expected = json.loads(process.stdout.splitlines()[-1]), expected_logits(models)
    for alias, logits in expected.items():
        assert found[alias]["logits"] == pytest.approx(logits, abs=1e-5)
        assert found[alias]["same"]
        assert found[alias]["text"].startswith(QUESTION)
    assert expected["knee"] != pytest.approx(expected["best-forget"], abs=1e-2)


def test_versions_have_tags_and_a_description(models: Path, uri: str, report: Path, look: Look) -> None:
    finish(uri, front(models), report)
    found = versions(look, uri)
    assert found.keys() == {RUNS[0], RUNS[1]}
    tags = found[RUNS[1]].tags
    logged = look(uri).get_run(found[RUNS[1]].run_id).data.metrics
    assert float(tags["forget"]) == logged["forget"]
    assert float(tags["utility"]) == logged["utility"]
    assert (tags["lethe.trial"], tags["lethe.study"]) == ("1", "0123456789abcdef")
    assert (tags["lethe.data"], tags["lethe.base"]) == ("d" * 16, "b" * 16)
    client = look(uri)
    assert client.get_model_version_by_alias("lethe-tofu", "knee").tags["lethe.run"] == RUNS[1]
    (output,) = client.get_run(found[RUNS[1]].run_id).outputs.model_outputs
    files = {path.path for path in client.list_logged_model_artifacts(output.model_id)}
    assert {"MLmodel", "model", "adapter", "requirements.txt"} <= files
    pins = Path(found[RUNS[0]].source.removeprefix("file://"), "requirements.txt")
    assert "torch==" in pins.read_text()
    assert "+" not in pins.read_text()


def aliased(look: Look, uri: str, alias: str) -> str:
    """The run whose version an alias names."""
    return str(look(uri).get_model_version_by_alias("lethe-tofu", alias).tags["lethe.run"])


def test_front_members_are_logged_models_with_metrics_and_one_point_each_in_their_run(
    models: Path, uri: str, report: Path, look: Look
) -> None:
    finish(uri, front(models), report)
    client, version = look(uri), versions(look, uri)[RUNS[1]]
    (output,) = client.get_run(version.run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (str(model.status), model.model_type, model.params["adapter.rank"]) == ("READY", "unlearned", "8")
    assert {metric.key: metric.value for metric in model.metrics} == {"forget": 0.2, "utility": 0.5}
    assert len(client.get_metric_history(version.run_id, "forget")) == 3
    assert version.source == model.artifact_location


def test_registering_again_makes_no_new_version_and_moves_the_studys_own_alias(
    models: Path, uri: str, report: Path, look: Look
) -> None:
    finish(uri, front(models), report)
    before = {run: version.version for run, version in versions(look, uri).items()}
    finish(uri, front(models, aliases={"knee": 0}), report)
    assert {run: version.version for run, version in versions(look, uri).items()} == before
    assert aliased(look, uri, "0123456789abcdef-knee") == RUNS[0]
    assert aliased(look, uri, "knee") == RUNS[1]  # neither of the two dominates the other


def test_an_adapter_that_is_cut_later_is_in_the_version_and_on_its_card(
    models: Path, uri: str, report: Path, look: Look, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    finish(uri, front(tmp_path), report)
    folder = Path(versions(look, uri)[RUNS[1]].source.removeprefix("file://"))
    assert "rank-2" not in (folder / "README.md").read_text()
    for rank in (3, 2):
        finish(uri, with_saved_adapters(front(tmp_path), rank), report)
    assert versions(look, uri)[RUNS[1]].tags["adapter_cut_to"] == "2"
    cut, saved = folder / "adapter/rank-2", tmp_path / "1/model/rank-2"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (cut / name).read_bytes() == (saved / name).read_bytes()
    for place in (".", "model", "adapter"):
        assert "in rank-2 cut to rank 2: relative error" in (folder / place / "README.md").read_text()


def one(models: Path, study_id: str, run: str, forget: float, utility: float, **changes: Any) -> StudyRecord:
    found = trial(0, forget, utility, run=run, pareto_rank=0, folder=str(models / "0"))
    return study(found, **{"id": study_id, "aliases": {"knee": 0}} | changes)


def test_the_alias_of_a_space_moves_to_what_dominates_and_to_nothing_else(
    models: Path, uri: str, report: Path, look: Look
) -> None:
    def register(record: StudyRecord) -> tuple[str, ...]:
        tracker = MlflowTracker(uri)
        tracker.begin(record)
        registered = tracker.register(record)
        assert registered.add_to(record).trials[0].version == f"models:/lethe-tofu/{len(versions(look, uri))}"
        tracker.finish(record, report)
        return registered.notes

    first = one(models, "tofu-1", "a", 0.3, 0.5)
    assert register(first) == ()
    assert register(first) == ()  # as after --resume
    worse = one(models, "tofu-2", "b", 0.2, 0.4)
    (note,) = register(worse)
    assert note.startswith("models:/lethe-tofu@knee stays on version 1: version 2 does not dominate it (forget 0.2 to")
    elsewhere = one(models, "tofu-3", "c", 0.1, 0.6, digests={"data": "other", "model": "b" * 16, "oracle": None})
    (note,) = register(elsewhere)
    assert "stays on version 1: version 3 has other data" in note
    assert aliased(look, uri, "knee") == "a"
    better = one(models, "tofu-4", "d", 0.3, 0.6)
    (note,) = register(better)
    assert note == "models:/lethe-tofu@knee was version 1 and is version 4, which dominates it"
    found = {name: aliased(look, uri, name) for name in ("knee", *(f"tofu-{n}-knee" for n in range(1, 5)))}
    assert list(found.values()) == ["d", "a", "b", "c", "d"]


def test_promote_names_a_trial_and_registers_it_while_its_weights_are_there(
    models: Path, uri: str, report: Path, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from lethe.cli.promote import main

    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    beaten = trial(2, 0.4, 0.4, pareto_rank=1, folder=str(models / "0"))
    broken = trial(4, verdict="diverged", metrics={}, feasible=False)
    record = front(models, study=load_study("tofu", [f"tracking.uri={uri}"]).model_dump(mode="json"))
    record = record.model_copy(update={"trials": (*record.trials, beaten, broken)})
    finish(uri, record, report)
    file = tmp_path / "studies/tofu-00000001/study.json"
    file.parent.mkdir(parents=True)
    file.write_text(record.model_dump_json())

    assert main(["tofu", "knee", "--as", "champion"]) == 0
    assert main(["tofu", "2", "--as", "champion", "--as", "release-3"]) == 0
    given = ("models:/lethe-tofu/3", "models:/lethe-tofu@champion", "models:/lethe-tofu@release-3")
    assert capsys.readouterr().out.endswith(f" is {', '.join(given)}\n")
    assert aliased(look, uri, "champion") == aliased(look, uri, "release-3") == RUNS[2]
    kept = StudyRecord.model_validate_json(file.read_text()).trials
    assert {known.number: known.version for known in kept if known.version} == {
        1: "models:/lethe-tofu/2", 2: "models:/lethe-tofu/3"
    }  # fmt: skip
    for words, named in (
        (["3", "--as", "x"], "no model is left of trial 3"),
        (["4", "--as", "x"], "trial 4 of 0123456789abcdef has no scores"),
        (["2", "--as", "a.b"], "--as a.b: an alias has letters"),
        (["2", "--as", "v3"], "--as v3: an alias has letters"),
        (["2", "--as", "knee"], "--as knee: studies move knee and best-..."),
        (["2", "--as", "7"], "--as 7: studies move knee and best-..., and a number is a trial"),
        (["2"], "missing option '--as'"),
    ):
        assert main(["tofu", *words]) == 2
        err = capsys.readouterr().err
        assert named in err
        assert err.count("\n") == 1


def test_missing_model_is_one_warning_and_the_others_are_there(
    models: Path, uri: str, report: Path, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    lost = trial(2, 0.01, 0.9, pareto_rank=0, folder=str(models / "2"))
    record = front(models, aliases={"knee": 2, "best-forget": 0})
    finish(uri, record.model_copy(update={"trials": (lost, *record.trials)}), report)
    (warning,) = (r.getMessage() for r in caplog.records)
    assert "trial 2 has no saved model" in warning
    assert versions(look, uri).keys() == {RUNS[0], RUNS[1]}


def test_registering_can_be_left_out(models: Path, uri: str, report: Path, look: Look) -> None:
    finish(uri, front(models), report, register_models=False)
    assert not look(uri).search_registered_models()
