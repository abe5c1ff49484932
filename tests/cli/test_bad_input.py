"""What a user can get wrong before the first trial: one line that names it, exit code 2."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from lethe.cli.sweep import main
from lethe.study.session import Session
from tests import tiny


def refuses(capsys: pytest.CaptureFixture[str], *arguments: str, command: Callable[[list[str]], int] = main) -> str:
    """The one line that the command leaves on stderr."""
    assert command(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lethe:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["tofuu"], ["tofuu", "tofu"]),
        (["tofu", "--set", "serch.trials=3"], ["serch", "search"]),
        (["tofu", "--set", "objectives.forgte.direction=minimize"], ["forgte", "forget"]),
        (["tofu", "--set", "run.objective.name=npoo"], ["objective", "npoo", "npo"]),
        (
            ["tofu", "--set", "space.optimizer.lr={type: float, low: 1e-5, high: 1e-3}"],
            ["optimizer.lr", "learning_rate"],
        ),
        (["tofu", "--set", "space.optimizer.learning_rate.low=1"], ["learning_rate", "low", "high"]),
        (["tofu", "--set", "objectives.forget_rouge={floor: 0.5}"], ["objectives.forget_rouge", "direction"]),
        (["tofu", "--set", "run.engine.stage=4"], ["engine.stage", "4"]),
        (["tofu", "--set", "run.engine.precision=fp16"], ["engine.precision", "fp16", "bf16"]),
        (["tofu", "--trials", "0"], ["search.trials"]),
        (["tofu", "--set", "space.evaluation.max_rows={type: int, low: 5, high: 9}"], ["run.evaluation.max_rows"]),
        (["tofu", "--set", "benchmark.forget=forget33"], ["forget33", "forget10"]),
        (["tofu", "--set", "benchmark.source=no/such/folder"], ["no/such/folder"]),
    ],
    ids=lambda v: v[-1] if isinstance(v, list) and v and "=" in v[-1] else None,
)
def test_invalid_studies_are_refused_in_one_line(
    arguments: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refuses(capsys, *arguments)
    for word in named:
        assert word in line


@pytest.fixture
def pieces(tmp_path: Path) -> tuple[Path, Path]:
    return tiny.write_data(tmp_path / "data"), tiny.write_model(tmp_path / "model")


def with_pieces(data: Path, model: Path) -> list[str]:
    return ["tofu", "--set", f"benchmark.source={data}", "--set", f"model={{name: pretrained, path: {model}}}"]


def drop_file(data: Path, model: Path) -> None:
    (data / "retain_perturbed.json").unlink()


def drop_column(data: Path, model: Path) -> None:
    path = data / "forget10_perturbed.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "perturbed_answer"}) + "\n" for r in rows))


def empty_forget(data: Path, model: Path) -> None:
    (data / "forget10.json").write_text("")


def drop_tokenizer(data: Path, model: Path) -> None:
    for path in model.glob("*token*"):
        path.unlink()


def drop_weights(data: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()


def only_pickle(data: Path, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def changed(edit: Callable[[dict[str, Tensor]], object]) -> Callable[[Path, Path], None]:
    """A model whose tensors `edit` has changed in place."""

    def change(data: Path, model: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(model / "model.safetensors").items()}
        edit(tensors)
        save_file(tensors, model / "model.safetensors", {"format": "pt"})

    return change


@pytest.mark.parametrize(
    ("breaks", "named"),
    [
        (changed(lambda tensors: tensors.pop("lm_head.weight")), ["model.path", "missing", "lm_head.weight"]),
        (changed(lambda tensors: tensors["model.norm.weight"].fill_(math.nan)), ["model.path", "NaN", "model.norm"]),
        (drop_file, ["retain_perturbed.json"]),
        (drop_column, ["forget10_perturbed", "perturbed_answer"]),
        (empty_forget, ["forget10", "has no rows"]),
        (drop_tokenizer, ["tokenizer"]),
        (drop_weights, ["safetensors"]),
        (only_pickle, ["safetensors", "pickled"]),
    ],
)
def test_missing_data_and_models_are_refused_in_one_line(
    breaks: Callable[[Path, Path], None],
    named: list[str],
    pieces: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaks(*pieces)
    monkeypatch.setattr(Session, "__enter__", lambda _: pytest.fail("Ray was started"))
    line = refuses(capsys, *with_pieces(*pieces))
    for word in named:
        assert word in line


@pytest.mark.long  # the check alone is in tests/study/test_checks.py
def test_a_rank_larger_than_a_layer_is_refused(pieces: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    line = refuses(capsys, *with_pieces(*pieces), "--set", "space.adapter.rank={type: choice, choices: [4, 64]}")
    assert "64" in line
    assert "at most 32" in line


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "MLFLOW_TRACKING_URI"])
def test_servers_that_do_not_answer_are_named(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # bound but not listening: refused at once, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(variable, address if variable == "RAY_ADDRESS" else f"http://{address}")
        began = time.monotonic()
        line = refuses(capsys, "tofu")
    assert address in line
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("what", ["reports", "home"])
def test_folders_that_cannot_be_written_are_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where a folder is needed: refused to every user, root included."""
    (tmp_path / "file").write_text("")
    target = str(tmp_path / "file" / "below")
    if what == "home":
        monkeypatch.setenv("LETHE_HOME", target)
        line = refuses(capsys, "tofu", "--reports", str(tmp_path))
    else:
        line = refuses(capsys, "tofu", "--reports", target)
    assert "cannot write" in line
    assert target in line


def test_resume_without_an_earlier_study_is_refused(
    pieces: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*with_pieces(*pieces), "--set", "space.adapter.rank={type: choice, choices: [4]}", "--resume"]
    assert "nothing to resume" in refuses(capsys, *arguments)


def test_a_missing_device_is_refused(cluster: None) -> None:
    from lethe.config.study import load_study
    from lethe.errors import UserError
    from lethe.study.preflight import check_devices

    for setting, named in (("run.engine.device=cuda", "GPU"), ("run.engine.workers=3", "CPU")):
        with pytest.raises(UserError, match=named):
            check_devices(load_study("tofu", [setting]))
