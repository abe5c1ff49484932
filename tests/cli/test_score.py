"""`score` as a person calls it, on small real models; what cannot be scored is one line that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lethe.benchmarks.tofu.eval_set import build_eval_set
from lethe.benchmarks.tofu.evaluation import evaluate
from lethe.benchmarks.tofu.loading import load_rows
from lethe.cli.score import main
from lethe.config.benchmark import TofuBenchmark
from lethe.config.prompt import Prompt
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.hashing import model_digest
from lethe.models.loading import load_adapted, load_model, load_tokenizer
from lethe.study.scoring import Scoring
from tests import tiny
from tests.cli.test_bad_input import refuses as _refuses
from tests.tracking.studies import save_adapter

pytestmark = pytest.mark.slow

FEW = ["--set", "run.evaluation.max_new_tokens=5"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, an oracle, an adapter on the first model, and data."""
    folder = tmp_path_factory.mktemp("score")
    tiny.write_data(folder / "data")
    for seed, name in enumerate(("one", "two", "oracle")):
        tiny.write_model(folder / name, seed)
    save_adapter(folder / "one", folder / "adapter")
    return folder


@pytest.fixture(autouse=True)
def _here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were measured, not read back."""
    names: list[str] = []
    original = Scoring._measure

    def measure(self, model, *given):
        names.append(model.name)
        return original(self, model, *given)

    monkeypatch.setattr(Scoring, "_measure", measure)
    return names


def refuses(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    return _refuses(capsys, *arguments, command=main)


def scored(tmp_path: Path, *arguments: str) -> dict:
    target = tmp_path / "found/scores.json"
    assert main([*arguments, "--source", "data", *FEW, "--json", str(target)]) == 0
    return json.loads(target.read_text())


def test_numbers_are_those_of_the_evaluation(world: Path, tmp_path: Path, measured: list[str]) -> None:
    found = scored(tmp_path, "one", "adapter", "--oracle", "oracle", "--base", "one")
    config = Evaluation(max_new_tokens=5)
    evals = build_eval_set(load_rows(TofuBenchmark(source="data")), Template(load_tokenizer(world / "one")), config)
    truth = evaluate(load_model(world / "oracle"), evals, config, None).reference
    models = [load_model(world / "one"), load_adapted(world / "one", world / "adapter")]
    expected = [evaluate(model, evals, config, truth).metrics for model in models]
    assert [model["metrics"] for model in found["models"]] == [pytest.approx(values) for values in expected]
    assert expected[0] != pytest.approx(expected[1], abs=1e-3)
    assert found["oracle"]["metrics"]["forget"] == 0
    assert found["oracle"]["metrics"]["forget_quality"] == 1
    assert found["models"][0]["digest"] == model_digest(world / "one")
    assert measured == ["oracle", "one", "adapter"]


def test_scores_are_read_back_under_every_name_of_a_model(
    world: Path, tmp_path: Path, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = scored(tmp_path, "one", "two", "--oracle", "oracle")
    shutil.copytree(world / "two", tmp_path / "copy")
    measured.clear()
    again = scored(tmp_path, str(tmp_path / "copy"), "one", "--oracle", "two")
    assert measured == []
    assert first["models"][1]["metrics"]["utility"] == again["models"][0]["metrics"]["utility"]
    assert again["models"][0]["metrics"]["forget"] == 0, "another oracle, and nothing is measured again"
    scored(tmp_path, "one", "--oracle", "oracle", "--max-rows", "3")
    assert measured == ["oracle", "one"]
    assert "forget" in capsys.readouterr().out


def test_without_an_oracle_forget_is_extraction_strength(tmp_path: Path) -> None:
    (model,) = scored(tmp_path, "one")["models"]
    assert model["metrics"]["forget"] == model["metrics"]["forget_extraction_strength"]
    assert "forget_quality" not in model["metrics"]


def test_rows_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = scored(tmp_path, "one", "two", "--metrics", "utility,forget_rouge")
    rows = [line for line in capsys.readouterr().out.splitlines() if "_" in line or "utility" in line]
    assert len(rows) == 2
    assert "utility" in rows[0]
    assert "forget_rouge" in rows[1]
    assert "retain_rouge" in found["models"][0]["metrics"]


def test_an_instruction_is_put_before_the_question_once(world: Path, tmp_path: Path) -> None:
    """In front of the question, or by the chat template that a study saved."""
    from lethe.study.scored_models import find

    instruction = "w1 w2"
    guarded = shutil.copytree(world / "one", tmp_path / "guarded")
    (guarded / "input_guard.json").write_text(json.dumps({"instruction": instruction}))
    chat = shutil.copytree(guarded, tmp_path / "chat")
    tokenizer = load_tokenizer(chat)
    tokenizer.chat_template = "{{ bos_token }}<|user|>{{ messages[0]['content'] }}<|end|><|assistant|>"
    Template(tokenizer, instruction=instruction).portable_tokenizer().save_pretrained(chat)
    plain = Template(load_tokenizer(world / "one"))
    expected = plain.prompt(f"{instruction} w3")
    assert [find(str(folder)).template().prompt("w3") for folder in (guarded, chat)] == [expected] * 2
    names = [str(guarded), str(world / "one")]
    one, other = (model["metrics"]["forget_probability"] for model in scored(tmp_path, *names)["models"])
    assert one != other, "equal weights, another instruction: another measurement"


def test_a_model_is_asked_as_it_was_trained_unless_told_otherwise(world: Path, tmp_path: Path) -> None:
    from lethe.study.scored_models import find

    trained = shutil.copytree(world / "one", tmp_path / "trained")
    (trained / "prompt.json").write_text(Prompt(template="w1 {question} w2 ").model_dump_json())
    plain = Template(load_tokenizer(world / "one"))
    assert find(str(trained)).template().prompt("w3") == plain.text("w1 w3 w2")
    assert find(str(world / "one")).template().prompt("w3") == plain.prompt("w3")
    names = [str(trained), str(world / "one")]
    own, default = (model["metrics"]["forget_probability"] for model in scored(tmp_path, *names)["models"])
    assert own != default, "equal weights, another prompt: another measurement"
    told = scored(tmp_path, *names, "--set", "prompt.template='w1 {question} w2 '")["models"]
    assert [model["metrics"]["forget_probability"] for model in told] == [own, own]
    (trained / "prompt.json").write_text('{"sytem": 1}')
    with pytest.raises(UserError, match=r"prompt.json: not a prompt"):
        find(str(trained)).template()


@pytest.mark.parametrize("spoilt", ["tokenizer.json", "tokenizer_config.json"])
def test_an_error_names_the_folder_once(
    spoilt: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(world / "one", tmp_path / "spoilt")
    (model / spoilt).write_text("{" if spoilt == "tokenizer.json" else '{"chat_template": "no", "eos_token": "</s>"}')
    assert main([str(model), "--source", "data", "--oracle", "none"]) == 2
    assert capsys.readouterr().err.count(str(model)) == 1


def test_an_adapter_of_another_base_is_refused_by_its_tensors(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.write_model(tmp_path / "wide", hidden=64)
    assert main(["adapter", "--base", str(other), "--source", "data", "--oracle", "none"]) == 2
    line = capsys.readouterr().err
    assert f"the adapter in {world}/adapter on {other}: " in line
    assert "misshapen tensors" in line


def run_folder(world: Path, folder: Path) -> Path:
    """A study's run that kept an adapter, as a study leaves it."""
    run = folder / "studies/s/runs/0123"
    shutil.copytree(world / "adapter", run / "model")
    config = json.loads((run / "model/adapter_config.json").read_text())
    (run / "model/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    (run / "result.json").write_text("{}")
    record = {"start_folder": str(world / "one"), "digests": {"model": model_digest(world / "one")}}
    (folder / "studies/s/study.json").write_text(json.dumps(record))
    return run


def test_a_run_is_scored_on_its_studys_start_model(world: Path, tmp_path: Path) -> None:
    run = run_folder(world, tmp_path)
    own, adapter = scored(tmp_path, str(run), str(run / "model"), "adapter", "--base", "one")["models"]
    assert adapter["metrics"] == own["metrics"]
    for name in (run, run / "model"):
        (alone,) = scored(tmp_path, str(name))["models"]
        assert alone["metrics"] == own["metrics"], name


def changed_base(run: Path) -> None:
    study = run.parents[1] / "study.json"
    study.write_text(json.dumps({**json.loads(study.read_text()), "digests": {"model": "another"}}))


def no_study(run: Path) -> None:
    (run.parents[1] / "study.json").unlink()


def no_model(run: Path) -> None:
    shutil.rmtree(run / "model")


def no_weights(run: Path) -> None:
    (run / "model/adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("breaks", "named"),
    [(changed_base, "changed since"), (no_study, "--base"), (no_model, "front alone"), (no_weights, "adapter_model")],
)
def test_runs_without_their_files_are_refused(
    breaks: Callable[[Path], None], named: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(world, tmp_path)
    breaks(run)
    line = refuses(capsys, str(run), "--source", "data")
    assert named in line
    assert str(run) in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["MODEL"]),
        (["nowhere"], ["nowhere", "hub id", "models:/name@alias"]),
        (["data"], ["data", "config.json"]),
        (["models:/name"], ["models:/name", "models:/name@alias"]),
        (["models:/name@knee"], ["no MLflow store", "MLFLOW_TRACKING_URI"]),
        (["one", "--benchmark", "tofuu"], ["tofuu", "tofu"]),
        (["one", "--source", "nowhere"], ["benchmark.source", "nowhere"]),
        (["one", "--source", "data", "--oracle", "nowhere"], ["--oracle", "nowhere"]),
        (["one", "--source", "data", "--metrics", "forget_qualty"], ["forget_qualty", "forget_quality"]),
        (["one", "--source", "data", "--metrics", "forget_quality"], ["forget_quality", "--oracle"]),
        (["one", "--oracle", "none", "--metrics", "forget_quality"], ["forget_quality", "--oracle"]),
        (["one", "--start", "two"], ["--start", "--oracle"]),
        (["one", "--benchmark", "tdec", "--oracle", "two"], ["--oracle", "--start"]),
        (["one", "--benchmark", "tdec", "--source", "data"], ["tdec", "--start"]),
        (["one", "--max-rows", "1"], ["max_rows", "1"]),
        (["one", "--source", "data", "--set", "run.engine.device=cuda"], ["cuda"]),
        (["one", "--source", "data", "--json", "data/forget10.json/x"], ["cannot write", "forget10.json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_bad_input(arguments: list[str], named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    line = refuses(capsys, *arguments)
    assert all(word in line for word in named), line


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors"])
def test_models_without_their_files_are_refused(
    missing: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(world / "one", tmp_path / "model")
    (folder / missing).unlink()
    line = refuses(capsys, str(folder), "--source", "data")
    assert missing.rpartition(".")[2] in line
    assert str(folder) in line


def test_a_hub_id_that_cannot_be_loaded_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "some/model is neither a folder nor reachable" in refuses(capsys, "some/model", "--source", "data")


def test_interrupted_scores_are_kept(measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counting = Scoring._measure

    def interrupt(self, model, *given):
        if model.name == "two":
            raise KeyboardInterrupt
        return counting(self, model, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Scoring, "_measure", interrupt)
        assert main(["one", "two", "--source", "data", *FEW]) == 130
    scored(tmp_path, "one", "two")
    assert measured == ["one", "two"]
